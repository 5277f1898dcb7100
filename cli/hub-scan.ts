/** ecp scan: which meters hang on which port, at what speed, under which unit numbers; and the lines for hub.yaml. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import type { ByteTransport } from "../drivers/byte-transport.ts";
import { modemBauds, modemSearchMs, searchModem } from "../drivers/lora/modem-search.ts";
import type { ModbusLine } from "../drivers/modbus/line.ts";
import { type SearchOptions, type SearchResult, searchLine } from "../drivers/modbus/meter-search.ts";
import { type LineSettings, longestSearchMs, planSearch, searchBauds } from "../drivers/modbus/meter-search-plan.ts";
import type { MeterProfile, Parity } from "../drivers/modbus/profile.ts";
import { meterProfiles } from "../drivers/modbus/profile-catalogue.ts";
import { createRtuLine } from "../drivers/modbus/rtu-line.ts";
import { createRtuTcpLine, createTcpLine } from "../drivers/modbus/tcp-line.ts";
import { openSerialPort } from "../drivers/serial/serial-port.ts";
import { listSerialPorts } from "../drivers/serial/serial-port-list.ts";
import { bitsPerCharacter, describeFraming } from "../drivers/serial/serial-settings.ts";
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { readHubFile } from "./hub-configuration.ts";
import { configOption, jsonOption } from "./hub-options.ts";
import { durationText, resultJson, resultText, ScanProgress } from "./hub-scan-view.ts";
import { placeText, type ScannedLine, type TcpPlace, writeFindings } from "./hub-scan-write.ts";
import { systemLoraTiming } from "./lora-timing.ts";

const name = "ecp scan";
const portsMax = 16;
/** A tcp server is near or it is a gateway that waits for its own meters: both within this time. */
const tcpTimeoutMs = 1_000;
const serialTimeoutMs = 250;
/** A lost pty or adapter is seen by its events here; silence is what a search mostly hears. */
const timeoutsUntilReopen = Number.POSITIVE_INFINITY;
const knownBauds = [1200, 2400, 4800, 9600, 19_200, 38_400, 57_600, 115_200];

export const hubScan: Command = {
  summary: "find the meters on a port: speed, unit, make; and the lines for hub.yaml; and LoRaWAN modems",
  usage: `Usage: ecp scan [--serial PATH … | --all | --tcp HOST:PORT … [--framing tcp|rtu]] [--units 1-247] [--bauds 9600,19200,…]
                [--parities none,even,odd] [--timeout MS] [--write [--config hub.yaml]] [--json]
       ecp scan --lora [--serial PATH … | --all] [--bauds 9600,…] [--json]

Asks for two registers, unit after unit, and only ever reads. Quickest first: the factory settings of the known makes, then units 1
to 10 at every speed and parity, then the others; a line that answers is searched to the end at that setting. --all (the default
without --serial and --tcp) takes every serial port of this machine; ports are searched side by side. How long it takes at
most is said before it begins. Ctrl-C ends it, and shows what was found.
A serial port at which no meter answers is asked for a LoRaWAN modem in the end. --lora asks for modems alone, in some seconds: it writes
AT commands (for versions and the address, nothing is set), which a port with meters on it should be spared.
--timeout  how long an answer is waited for: ${serialTimeoutMs} ms on a serial line, ${tcpTimeoutMs} ms on TCP
--write    adds the lines and meters found to hub.yaml, and gives a line there the speed and parity at which its meters
           answered; all else is left as it is, comments too

A port that the agent has open is busy: stop 'ecp run' first. Exit status 1 where nothing was found, 69 where no port could be used.`,

  async run(args) {
    const { values } = parseCommand(
      name,
      args,
      {
        ...configOption,
        ...jsonOption,
        serial: { type: "string", multiple: true },
        all: { type: "boolean", default: false },
        tcp: { type: "string", multiple: true },
        units: { type: "string", default: "1-247" },
        bauds: { type: "string" },
        parities: { type: "string" },
        timeout: { type: "string" },
        framing: { type: "string", default: "tcp" },
        lora: { type: "boolean", default: false },
        write: { type: "boolean", default: false },
      },
      [],
    );
    const units = unitsOf(values.units);
    const settings = settingsOf(values.bauds, values.parities);
    const timeoutMs = values.timeout === undefined ? undefined : integer("timeout", values.timeout, 20, 10_000);
    if (values.all && values.serial !== undefined) throw usageError(name, "--all and --serial together");
    if (values.lora && (values.tcp !== undefined || values.write))
      throw usageError(
        name,
        "--lora with --tcp or --write; modems are at serial ports, and are put into hub.yaml by hand",
      );
    const { framing } = values;
    if (framing !== "tcp" && framing !== "rtu") throw usageError(name, `--framing ${framing}; tcp or rtu was expected`);
    if (framing === "rtu" && values.tcp === undefined) throw usageError(name, "--framing without --tcp");
    // Before anything is searched: a hub.yaml that cannot be added to is said at once.
    const profiles = values.write ? readHubFile(values.config).profiles : profilesOf(values.config);
    const tcp = (values.tcp ?? []).map((text) => endpoint(text, framing));
    const serial =
      values.serial?.map((path) => resolve(path)) ?? (tcp.length > 0 && !values.all ? [] : await allPorts());
    if (serial.length + tcp.length > portsMax)
      throw usageError(name, `${serial.length + tcp.length} ports; at most ${portsMax} are searched at a time`);
    const targets = [...new Set(serial)].map((path) =>
      serialTarget(path, settings, { units, profiles, timeoutMs: timeoutMs ?? serialTimeoutMs }),
    );
    targets.push(...tcp.map((server) => tcpTarget(server, { units, profiles, timeoutMs: timeoutMs ?? tcpTimeoutMs })));
    if (targets.length === 0)
      throw usageError(
        name,
        "no serial port is plugged in; name one with --serial PATH, or a server with --tcp HOST:PORT",
      );
    return scan(targets, { ...values, modemBauds: values.bauds === undefined ? modemBauds : baudsOf(values.bauds) });
  },
};

interface Target {
  /** How the port is called in hub.yaml. */
  readonly place: ScannedLine["place"];
  readonly options: Omit<SearchOptions, "signal" | "onProgress">;
  readonly longestMs: number;
}

async function scan(
  targets: readonly Target[],
  flags: { json: boolean; write: boolean; config: string; lora: boolean; modemBauds: readonly number[] },
): Promise<number> {
  const interrupted = new AbortController();
  const interrupt = (): void => interrupted.abort();
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  const longestMs = flags.lora
    ? modemSearchMs * flags.modemBauds.length
    : Math.max(...targets.map((target) => target.longestMs));
  const say = (text: string): unknown => (flags.json ? process.stderr : process.stdout).write(text);
  say(
    `Searching ${targets.map(({ place }) => placeText(place)).join(", ")}: at most ${durationText(longestMs)}, most often ` +
      "far less. Ctrl-C ends it and shows what was found.\n",
  );
  const progress = new ScanProgress();
  const lines = await Promise.all(
    targets.map(async ({ place, options }, index): Promise<ScannedLine> => {
      const { signal } = interrupted;
      const onProgress: SearchOptions["onProgress"] = (event) => progress.show(index, placeText(place), event);
      const result = flags.lora ? notSearched : await searchLine({ ...options, signal, onProgress });
      progress.end(index);
      // AT commands are spared to the meters of a line: none has answered here.
      if (!("path" in place) || result.end !== "ended" || result.found.length > 0) return { place, result };
      const openAt = (baud: number): Promise<ByteTransport> => openSerialPort({ path: place.path, baud });
      const modem = await searchModem({ openAt, bauds: flags.modemBauds, timing: systemLoraTiming, signal });
      return { place, result, modem, isForModems: flags.lora };
    }),
  );
  progress.close();
  process.off("SIGINT", interrupt);
  process.off("SIGTERM", interrupt);
  const changes = flags.write ? writeFindings(flags.config, lines) : undefined;
  if (flags.json)
    process.stdout.write(`${JSON.stringify({ ...resultJson(lines), ...(changes && { written: changes.added }) })}\n`);
  else process.stdout.write(resultText(lines, changes));
  if (interrupted.signal.aborted) return exit.interrupted;
  if (lines.some(({ result, modem }) => result.found.length > 0 || modem?.modem !== undefined)) return exit.ok;
  return lines.every(({ result, modem }) => result.end === "failed" || modem?.error !== undefined)
    ? exit.unavailable
    : exit.failed;
}

/** Of a port at which meters were not asked for. */
const notSearched: SearchResult = { settings: undefined, found: [], remarks: [], end: "ended" };

/** What a search of every port has in common. */
type Common = Pick<SearchOptions, "units" | "profiles" | "timeoutMs">;

function serialTarget(path: string, settings: readonly LineSettings[], common: Common): Target {
  const steps = planSearch({ ...common, settings });
  const openLine = (at: LineSettings | undefined): ModbusLine => {
    const serial = { path, ...(at as LineSettings) };
    return createRtuLine({
      description: `${path} at ${describeFraming(serial)}`,
      openTransport: () => openSerialPort(serial),
      baud: serial.baud,
      bitsPerCharacter: bitsPerCharacter(serial),
      timeoutsUntilReopen,
    });
  };
  const longestMs = longestSearchMs(steps, common.units.length, common.timeoutMs);
  return { place: { path }, options: { ...common, kind: "rtu", openLine, steps }, longestMs };
}

function tcpTarget(server: TcpPlace, common: Common): Target {
  const steps = planSearch({ ...common, settings: undefined });
  const create = server.framing === "rtu" ? createRtuTcpLine : createTcpLine;
  const openLine = (): ModbusLine => create({ ...server, timeoutsUntilReopen });
  const longestMs = longestSearchMs(steps, common.units.length, common.timeoutMs);
  return { place: server, options: { ...common, kind: server.framing ?? "tcp", openLine, steps }, longestMs };
}

/** The profiles of one's own are looked at too, where there is a hub.yaml that names them and is right. */
function profilesOf(config: string): readonly MeterProfile[] {
  try {
    return existsSync(config) ? readHubFile(config).profiles : meterProfiles;
  } catch (error) {
    if (error instanceof CommandError) return meterProfiles;
    throw error;
  }
}

async function allPorts(): Promise<string[]> {
  return (await listSerialPorts()).map(({ path }) => path);
}

/** `1-10,21,100-110`, ascending, each once. */
function unitsOf(text: string): number[] {
  const units = new Set<number>();
  for (const part of text.split(",")) {
    const [, from, to = from] = /^(\d{1,3})(?:-(\d{1,3}))?$/.exec(part.trim()) ?? [];
    if (from === undefined || Number(from) < 1 || Number(to) > 247 || Number(from) > Number(to))
      throw usageError(name, `--units ${text}; numbers and ranges from 1 to 247 were expected, such as 1-10,21`);
    for (let unit = Number(from); unit <= Number(to); unit++) units.add(unit);
  }
  return [...units].sort((a, b) => a - b);
}

/** Every parity at every speed, in the order in which they are likely. */
function settingsOf(baudsText: string | undefined, paritiesText: string | undefined): LineSettings[] {
  const bauds = baudsText === undefined ? searchBauds : baudsOf(baudsText);
  const parities = (paritiesText ?? "none,even,odd").split(",");
  const isParity = (text: string): text is Parity => text === "none" || text === "even" || text === "odd";
  if (!parities.every(isParity))
    throw usageError(name, `--parities ${paritiesText}; some of none,even,odd were expected`);
  const common = parities.filter((parity) => parity !== "odd");
  const rare = parities.filter((parity) => parity === "odd");
  const all = [common, rare].flatMap((some) => bauds.flatMap((baud) => some.map((parity) => ({ baud, parity }))));
  return all.map((pair): LineSettings => ({ ...pair, stopBits: 1 }));
}

function baudsOf(list: string): number[] {
  const bauds = list.split(",").map((text) => Number(text));
  if (bauds.every((baud) => knownBauds.includes(baud))) return bauds;
  throw usageError(name, `--bauds ${list}; some of ${knownBauds.join(",")} were expected`);
}

function endpoint(text: string, framing: "tcp" | "rtu"): TcpPlace {
  const match = /^(.+?)(?::(\d{1,5}))?$/.exec(text);
  const port = Number(match?.[2] ?? 502);
  if (!match || port < 1 || port > 65_535) throw usageError(name, `--tcp ${text}; HOST:PORT was expected`);
  return { host: (match[1] ?? "").replace(/^\[|\]$/g, ""), port, ...(framing === "rtu" && { framing }) };
}

function integer(flag: string, text: string, min: number, max: number): number {
  if (/^\d{1,6}$/.test(text) && Number(text) >= min && Number(text) <= max) return Number(text);
  throw usageError(name, `--${flag} ${text}; an integer from ${min} to ${max} was expected`);
}
