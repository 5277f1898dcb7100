/** ecp-demo simulate modbus: simulated meters of any profile on one line, with faults that can be changed while it runs. */
import { createInterface } from "node:readline";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { meterProfiles } from "../drivers/modbus/profile-catalogue.ts";
import { createHousehold } from "../simulator/household.ts";
import { meterDevice } from "../simulator/meter-device.ts";
import { NotASymlink } from "../simulator/pty.ts";
import { runSimulatedBus, type SimulatedBus } from "../simulator/simulated-bus.ts";
import { serialNumberFrom } from "../simulator/simulated-meter.ts";
import { SimulatedSlave, seededRandom } from "../simulator/simulated-slave.ts";
import { type FaultSetting, faultSpellings, parseFault } from "../simulator/slave-fault.ts";
import { sunspecHousehold } from "../simulator/sunspec-household.ts";
import { type Command, CommandError, exit, parseCommand, systemCode, usageError } from "./command.ts";
import { profileNamed } from "./profile-files.ts";

const name = "ecp-demo simulate modbus";
const metersMax = 32;

export const demoSimulateModbus: Command = {
  summary: "simulated meters of any profile on one line, with faults on demand",
  usage: `Usage: ecp-demo simulate modbus --profile NAME [--unit N] | --meter NAME@UNIT …
                                [--port LINK | --tcp HOST:PORT [--framing tcp|rtu]] [--baud N] [--parity none|even|odd|any]
                                [--stop-bits 1|2] [--fault [UNIT=]FAULT …] [--seed N] [--control] [--json] [--exit-with-parent]

Makes a pty and prints its path, and with --port makes LINK a symlink to it; or serves Modbus TCP (--framing rtu: RTU frames over TCP;
port 0: any). --meter may be given up to ${metersMax} times: several meters on one line, of which two may share a unit, as in life.
Answers take the time that their characters need at --baud (9600; beside --parity alone, the first meter's from the
factory). Where --baud or --parity is given, the line keeps to it as a real one: a program that has set another speed or parity gets garbage. Of a pty Linux tells parity only to those that check it
(stty inpck, as ecp does): for other programs, leave --parity out.
--seed chooses the house; the serial number of each meter is ${serialNumberFrom} + seed + unit.

FAULT: ${faultSpellings.join(", ")};
  with *N for the next N answers only, with %P for so many per cent of them: bad-crc%20, lost*3, late:800.
  lost, dead are silent; foreign is wrong-unit.
--control reads commands from standard input, one a line:
  fault UNIT FAULT     from now on; 'fault UNIT none' ends it
  noise N              N random bytes that nobody asked for
  cut, plug            pull the cable, and put it back
Runs until SIGTERM or SIGINT. Profiles: ${meterProfiles.map(({ id }) => id).join(", ")}`,

  async run(args) {
    const { values } = parseCommand(
      name,
      args,
      {
        profile: { type: "string" },
        unit: { type: "string" },
        meter: { type: "string", multiple: true },
        port: { type: "string" },
        tcp: { type: "string" },
        framing: { type: "string" },
        baud: { type: "string" },
        parity: { type: "string" },
        "stop-bits": { type: "string" },
        fault: { type: "string", multiple: true },
        seed: { type: "string", default: "1" },
        control: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        "exit-with-parent": { type: "boolean", default: false },
      },
      [],
    );
    const seed = integer("seed", values.seed, 0, 1_000_000);
    const meters = metersOf(values);
    const slaves = slavesOf(meters, seed);
    for (const text of values.fault ?? []) setFault(slaves, text);
    const tcp = values.tcp === undefined ? undefined : endpoint(values.tcp, values.framing);
    if (tcp && (values.port ?? values.baud ?? values.parity ?? values["stop-bits"]) !== undefined)
      throw usageError(name, "--tcp together with --port, --baud, --parity or --stop-bits: a line is one of the two");
    if (!tcp && values.framing !== undefined) throw usageError(name, "--framing without --tcp");
    const bus = await start(slaves, meters[0]?.profile.factory.bauds[0] ?? defaultBaud, values, tcp);
    if (values.json) {
      const units = meters.map(({ profile, unit }) => ({ unit, profile: profile.id }));
      const { path, address } = bus;
      print({ event: "started", pid: process.pid, path, address, link: values.port, meters: units });
    } else {
      const where = bus.address ? `Modbus ${tcp?.framing === "rtu" ? "RTU over " : ""}TCP ${bus.address}` : bus.path;
      const list = meters.map(({ profile, unit }) => `  unit ${unit}: ${profile.make} ${profile.models[0]}\n`);
      process.stdout.write(
        `simulated line: ${where}${values.port ? `, ${values.port}` : ""}; Ctrl-C ends\n${list.join("")}`,
      );
    }
    await untilEnd(values["exit-with-parent"], values.control, (line) => obey(line, bus, seed, values.json));
    await bus.close();
    process.stdin.destroy();
    return exit.ok;
  },
};

interface PlacedMeter {
  readonly profile: MeterProfile;
  readonly unit: number;
}

function metersOf(values: {
  profile?: string | undefined;
  unit?: string | undefined;
  meter?: string[] | undefined;
}): PlacedMeter[] {
  const meters: PlacedMeter[] = (values.meter ?? []).map((text) => {
    const [, id, unit] = /^(.+)@(\d{1,3})$/.exec(text) ?? [];
    if (id === undefined) throw usageError(name, `--meter ${text}; NAME@UNIT was expected, such as eastron-sdm630@1`);
    return { profile: profileNamed(name, id, "meter"), unit: integer("meter", unit ?? "", 1, 247) };
  });
  if (values.profile !== undefined) {
    const profile = profileNamed(name, values.profile);
    const unit = values.unit === undefined ? profile.factory.unit : integer("unit", values.unit, 1, 247);
    meters.unshift({ profile, unit });
  } else if (values.unit !== undefined) throw usageError(name, "--unit without --profile");
  if (meters.length === 0) throw usageError(name, "neither --profile NAME nor --meter NAME@UNIT");
  if (meters.length > metersMax)
    throw usageError(name, `${meters.length} meters; at most ${metersMax} hang on one line`);
  return meters;
}

function slavesOf(meters: readonly PlacedMeter[], seed: number): SimulatedSlave[] {
  const households = new Map<number, ReturnType<typeof createHousehold>>();
  return meters.map(({ profile, unit }, place) => {
    // Another house for each meter, so that one cannot be taken for another.
    const household = households.get(seed + place) ?? createHousehold(seed + place);
    households.set(seed + place, household);
    const serialNumber = serialNumberFrom + seed + unit;
    const make = profile.kind === "sunspec" ? sunspecHousehold : meterDevice;
    const device = make(profile, { unit, household, now: Date.now, serialNumber });
    return new SimulatedSlave(device, seededRandom(seed * 1000 + place));
  });
}

/** `FAULT` for every meter, `UNIT=FAULT` for one. */
function setFault(slaves: readonly SimulatedSlave[], text: string): void {
  const [, unit, spelling = ""] = /^(?:(\d{1,3})=)?(.*)$/.exec(text) ?? [];
  const chosen = unit === undefined ? slaves : slaves.filter((slave) => slave.unit === Number(unit));
  if (chosen.length === 0)
    throw usageError(name, `--fault ${text}; the units are ${slaves.map((slave) => slave.unit).join(", ")}`);
  const setting = parseFault(spelling);
  if (!setting) throw usageError(name, `--fault ${text}; one of ${faultSpellings.join(", ")} was expected`);
  for (const slave of chosen) give(slave, setting);
}

function give(slave: SimulatedSlave, { fault, times, share }: FaultSetting): void {
  slave.setFault(fault, times, share);
}

interface LineFlags {
  readonly port?: string | undefined;
  readonly baud?: string | undefined;
  readonly parity?: string | undefined;
  readonly "stop-bits"?: string | undefined;
}

/** Where nothing is said, quick enough for every meter. */
const defaultBaud = 9600;

/** @param factoryBaud speed of a line whose parity alone is given */
async function start(
  slaves: readonly SimulatedSlave[],
  factoryBaud: number,
  flags: LineFlags,
  tcp: { host: string; port: number; framing: "tcp" | "rtu" } | undefined,
): Promise<SimulatedBus> {
  const { port, parity = "any", "stop-bits": stopBits = "1" } = flags;
  if (parity !== "none" && parity !== "even" && parity !== "odd" && parity !== "any")
    throw usageError(name, `--parity ${parity}; none, even, odd or any was expected`);
  if (stopBits !== "1" && stopBits !== "2") throw usageError(name, `--stop-bits ${stopBits}; 1 or 2 was expected`);
  const isStrict = (flags.baud ?? flags.parity ?? flags["stop-bits"]) !== undefined;
  const baud = integer("baud", flags.baud ?? `${isStrict ? factoryBaud : defaultBaud}`, 300, 230_400);
  return runSimulatedBus({
    slaves,
    ...(port !== undefined && { link: port }),
    ...(tcp && { tcp }),
    baud,
    ...(isStrict && { strict: { parity, stopBits: stopBits === "1" ? 1 : 2 } }),
  }).catch((error: Error & { syscall?: string }) => {
    const ofLink = error instanceof NotASymlink || (systemCode(error) !== undefined && error.syscall === "symlink");
    if (port === undefined || !ofLink) throw error;
    throw new CommandError(exit.cannotCreate, {
      expected: "a path that is free, or a symlink that may be replaced",
      got: error instanceof NotASymlink ? "something else is there; it was left as it is" : error.message,
      where: `--port ${port}`,
      todo: "choose another path",
    });
  });
}

/** A command from standard input; what cannot be understood is said, and nothing changes. */
async function obey(line: string, bus: SimulatedBus, seed: number, json: boolean): Promise<void> {
  const [verb = "", ...words] = line.trim().split(/\s+/);
  const say = (text: string, event: object): void => {
    if (json) print(event);
    else process.stdout.write(`${text}\n`);
  };
  const refuse = (problem: string): void => say(`not understood: ${problem}`, { event: "refused", line, problem });
  if (verb === "") return;
  if (verb === "fault") {
    const slaves = bus.slaves.filter((slave) => `${slave.unit}` === words[0]);
    const setting = parseFault(words[1] ?? "");
    if (slaves.length === 0) return refuse(`unit ${words[0] ?? "is missing"}`);
    if (!setting && words[1] !== "none") return refuse(`fault ${words[1] ?? "is missing"}`);
    for (const slave of slaves) {
      if (setting) give(slave, setting);
      else slave.setFault(undefined);
    }
    say(`unit ${words[0]}: ${words[1]}`, { event: "fault", unit: Number(words[0]), fault: words[1] });
  } else if (verb === "noise") {
    const count = Number(words[0]);
    if (!(Number.isInteger(count) && count >= 1 && count <= 1000)) return refuse(`noise ${words[0] ?? ""}`);
    const random = seededRandom(seed);
    bus.disturb(Uint8Array.from({ length: count }, () => Math.floor(256 * random())));
    say(`${count} bytes of noise`, { event: "noise", count });
  } else if (verb === "cut" || verb === "plug") {
    await (verb === "cut" ? bus.cut() : bus.reconnect());
    say(verb === "cut" ? "the cable is pulled" : `the cable is back: ${bus.path ?? bus.address}`, {
      event: verb,
      path: bus.path,
    });
  } else refuse(line);
}

/** Until a signal, or the end of whoever started it. */
async function untilEnd(
  withParent: boolean,
  control: boolean,
  obeyLine: (line: string) => Promise<void>,
): Promise<void> {
  await new Promise<void>((resolve) => {
    process.once("SIGTERM", resolve);
    process.once("SIGINT", resolve);
    process.stdout.on("error", () => resolve());
    if (!withParent && !control) return;
    const lines = createInterface({ input: process.stdin, terminal: false });
    let tail = Promise.resolve();
    if (control)
      lines.on("line", (line) => {
        tail = tail.then(() => obeyLine(line));
      });
    if (withParent) lines.once("close", () => void tail.then(resolve));
  });
}

function print(event: object): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

function integer(flag: string, text: string, min: number, max: number): number {
  if (/^\d{1,7}$/.test(text) && Number(text) >= min && Number(text) <= max) return Number(text);
  throw usageError(name, `--${flag} ${text}; an integer from ${min} to ${max} was expected`);
}

function endpoint(text: string, framing = "tcp"): { host: string; port: number; framing: "tcp" | "rtu" } {
  const match = /^(.*):(\d{1,5})$/.exec(text);
  if (!match || Number(match[2]) > 65_535) throw usageError(name, `--tcp ${text}; HOST:PORT was expected`);
  if (framing !== "tcp" && framing !== "rtu") throw usageError(name, `--framing ${framing}; tcp or rtu was expected`);
  return { host: match[1]?.replace(/^\[|\]$/g, "") || "127.0.0.1", port: Number(match[2]), framing };
}
