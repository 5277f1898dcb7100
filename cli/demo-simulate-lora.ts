/** ecp-demo simulate lora: a LoRaWAN on this machine, from a modem on a pty to a network server's MQTT. */
import { modemFamilies } from "../drivers/lora/modem.ts";
import { dataRates, regionNames } from "../drivers/lora/region.ts";
import type { UplinkEvent } from "../simulator/lora-radio.ts";
import { NotASymlink } from "../simulator/pty.ts";
import { simulatedDevice } from "../simulator/simulated-identities.ts";
import { runSimulatedLora, type SimulatedLora } from "../simulator/simulated-lora.ts";
import { type Command, CommandError, exit, parseCommand, systemCode, usageError } from "./command.ts";

const servers = ["chirpstack", "tts"] as const;
const name = "ecp-demo simulate lora";
const faultHelp = "late:MS, twice, no-join, adr:SECONDS, reset:SECONDS, outage:SECONDS";

export const demoSimulateLora: Command = {
  summary: "a LoRaWAN modem on a pty, its radio, gateway and network server with MQTT",
  usage: `Usage: ${name} [--link PATH] [--family FAMILY] [--region REGION] [--dr N] [--server SERVER]
                              [--listen HOST:PORT] [--udp HOST:PORT] [--gateways N] [--loss SHARE] [--loss-up SHARE]
                              [--loss-down SHARE] [--dev-eui HEX] [--join-eui HEX] [--app-key HEX] [--unprovisioned]
                              [--fault FAULT]… [--json] [--exit-with-parent]

An AT modem on a pty (--link makes a symlink to it), LoRaWAN 1.0 frames, gateways that speak Semtech's UDP protocol to a
small network server, and that one's own MQTT broker. Everything stays on this machine, in real time. Until SIGTERM or SIGINT.

--family    ${modemFamilies.join(", ")} (rui3)
--region    ${regionNames.join(", ")} (EU868); --dr the data rate of a device that has joined, until ADR changes it (5)
--server    ${servers.join(" or ")}: whose JSON and topics (chirpstack)
--listen    where the broker listens (127.0.0.1:0, any port); --udp the network server's port for gateways
--loss      the share of frames that are lost, both ways: 0.1; or one way by --loss-up, --loss-down. Each --gateways loses its own
--dev-eui, --join-eui, --app-key   of the one device that the server knows (${simulatedDevice.devEui}, ${simulatedDevice.joinEui},
            ${simulatedDevice.appKey}); the modem has them too, unless --unprovisioned
--fault     may be repeated: ${faultHelp}.
            Downlinks late, events told twice, joins unanswered; every so many seconds another data rate, a modem that
            starts anew, gateways without backhaul for as long
--json      one JSON object a line: started, then each frame with its airtime and what the radio measured in the last hour`,

  async run(args) {
    const { values } = parseCommand(
      name,
      args,
      {
        link: { type: "string" },
        family: { type: "string", default: "rui3" },
        region: { type: "string", default: "EU868" },
        dr: { type: "string" },
        server: { type: "string", default: "chirpstack" },
        listen: { type: "string", default: "127.0.0.1:0" },
        udp: { type: "string", default: "127.0.0.1:0" },
        gateways: { type: "string", default: "1" },
        loss: { type: "string", default: "0" },
        "loss-up": { type: "string" },
        "loss-down": { type: "string" },
        "dev-eui": { type: "string", default: simulatedDevice.devEui },
        "join-eui": { type: "string", default: simulatedDevice.joinEui },
        "app-key": { type: "string", default: simulatedDevice.appKey },
        unprovisioned: { type: "boolean", default: false },
        fault: { type: "string", multiple: true, default: [] },
        json: { type: "boolean", default: false },
        "exit-with-parent": { type: "boolean", default: false },
      },
      [],
    );
    const region = oneOf("region", values.region, regionNames);
    const rates = dataRates(region).map(({ dataRate }) => dataRate);
    const dataRate = values.dr === undefined ? undefined : integer("dr", values.dr, 0, 15);
    if (dataRate !== undefined && !rates.includes(dataRate))
      throw usageError(name, `--dr ${values.dr}: a LoRa data rate of ${region} was expected (${rates.join(", ")})`);
    const faults = values.fault.map(faultOf);
    let lora: SimulatedLora | undefined;
    lora = await runSimulatedLora({
      family: oneOf("family", values.family, modemFamilies),
      region,
      server: oneOf("server", values.server, servers),
      device: {
        devEui: hex("dev-eui", values["dev-eui"], 16),
        joinEui: hex("join-eui", values["join-eui"], 16),
        appKey: hex("app-key", values["app-key"], 32),
        name: simulatedDevice.name,
      },
      broker: endpoint("listen", values.listen),
      udp: endpoint("udp", values.udp),
      gateways: integer("gateways", values.gateways, 1, 16),
      lossUp: share("loss-up", values["loss-up"] ?? values.loss),
      lossDown: share("loss-down", values["loss-down"] ?? values.loss),
      hasKeys: !values.unprovisioned,
      ...(values.link !== undefined && { link: values.link }),
      ...(dataRate !== undefined && { dataRate }),
      onUplink: (event) => {
        if (lora) process.stdout.write(frameLine(event, lora, values.json));
      },
    }).catch((error: Error & { syscall?: string }) => {
      throw failed(error, values.link);
    });
    for (const fault of faults) begin(fault, lora, rates);
    process.stdout.write(startedLine(lora, values, values.json));
    await new Promise<void>((resolve) => {
      process.once("SIGTERM", resolve);
      process.once("SIGINT", resolve);
      process.stdout.on("error", () => resolve());
      if (values["exit-with-parent"]) process.stdin.resume().once("end", resolve).once("close", resolve);
    });
    await lora.close();
    process.stdin.destroy();
    return exit.ok;
  },
};

function startedLine(
  { path, brokerAddress, udpAddress, world }: SimulatedLora,
  { link, family, region, server }: { link?: string | undefined; family: string; region: string; server: string },
  json: boolean,
): string {
  const devEui = world.devices[0]?.devEui;
  const application = world.applicationId;
  if (!json)
    return `simulated ${family}, ${region}: modem at ${link ?? path}, DevEUI ${devEui}; ${server} at mqtt://${brokerAddress}, application ${application}; gateways at udp://${udpAddress}; Ctrl-C ends\n`;
  const event = { event: "started", pid: process.pid, path, link, broker: brokerAddress, udp: udpAddress };
  return `${JSON.stringify({ ...event, application, devEui })}\n`;
}

function frameLine(event: UplinkEvent, { world }: SimulatedLora, json: boolean): string {
  const meter = world.airtimeOf(event.device);
  const { frequencyHz, spreadingFactor, bandwidthKhz, phyBytes, gateways, startMs, endMs } = event;
  const airtimeMs = tenths(endMs - startMs);
  const hourMs = tenths(meter.lastHourMs(endMs));
  const dayMs = tenths(meter.lastDayMs(endMs));
  if (!json) {
    const heard = gateways === 0 ? "lost" : `heard by ${gateways}`;
    return `${(frequencyHz / 1e6).toFixed(1)} MHz  SF${spreadingFactor}  ${phyBytes} bytes  ${airtimeMs} ms  ${heard}; in the last hour ${hourMs} ms\n`;
  }
  const bands = meter.subBands();
  const worst = bands.map(({ worstHourMs, hourLimitMs }) => worstHourMs / hourLimitMs);
  return `${JSON.stringify({
    event: "frame",
    frequencyHz,
    spreadingFactor,
    bandwidthKhz,
    phyBytes,
    gateways,
    airtimeMs,
    frames: meter.frames,
    hourMs,
    dayMs,
    // Of the sub-band that comes nearest to its limit in any rolling hour; null where there is none.
    worstHourShare: worst.length === 0 ? null : Math.max(...worst),
  })}\n`;
}

type Fault =
  | { readonly kind: "late"; readonly ms: number }
  | { readonly kind: "twice" | "no-join" }
  | { readonly kind: "adr" | "reset" | "outage"; readonly everyMs: number };

function faultOf(text: string): Fault {
  const [kind = "", parameter = ""] = text.split(":");
  switch (kind) {
    case "late":
      return { kind, ms: integer("fault", parameter, 0, 60_000) };
    case "twice":
    case "no-join":
      return { kind };
    case "adr":
    case "reset":
    case "outage":
      return { kind, everyMs: integer("fault", parameter, 1, 86_400) * 1_000 };
    default:
      throw usageError(name, `--fault ${text}; one of ${faultHelp} was expected`);
  }
}

function begin(fault: Fault, { world, modem, timing }: SimulatedLora, rates: readonly number[]): void {
  const { server, gateways } = world;
  const devEui = world.devices[0]!.devEui;
  switch (fault.kind) {
    case "late":
      server.faults.downlinkLateMs = fault.ms;
      return;
    case "twice":
      server.faults.publishes = 2;
      return;
    case "no-join":
      server.faults.ignoresJoins = true;
      return;
    default: {
      let turns = 0;
      const turn = (): void => {
        turns++;
        if (fault.kind === "adr") server.setDataRate(devEui, rates[(turns * 2) % rates.length] as number);
        if (fault.kind === "reset") modem.reset();
        if (fault.kind === "outage") for (const gateway of gateways) gateway.isOnline = turns % 2 === 0;
        timing.after(fault.everyMs, turn);
      };
      timing.after(fault.everyMs, turn);
    }
  }
}

function failed(error: Error & { syscall?: string }, link: string | undefined): Error {
  if (link !== undefined && (error instanceof NotASymlink || error.syscall === "symlink"))
    return new CommandError(exit.cannotCreate, {
      expected: "a path that is free, or a symlink that may be replaced",
      got: error instanceof NotASymlink ? "something else is there; it was left as it is" : error.message,
      where: `--link ${link}`,
      todo: "choose another path",
    });
  if (systemCode(error) === undefined) return error;
  return new CommandError(exit.cannotCreate, {
    expected: "addresses that can be listened on",
    got: error.message,
    where: "--listen and --udp",
    todo: "choose others, or leave them out for any free ones",
  });
}

function oneOf<T extends string>(flag: string, text: string, known: readonly T[]): T {
  const found = known.find((value) => value === text);
  if (found === undefined) throw usageError(name, `--${flag} ${text}; ${known.join(", ")} was expected`);
  return found;
}

function integer(flag: string, text: string, min: number, max: number): number {
  if (/^\d{1,7}$/.test(text) && Number(text) >= min && Number(text) <= max) return Number(text);
  throw usageError(name, `--${flag} ${text}; an integer from ${min} to ${max} was expected`);
}

function share(flag: string, text: string): number {
  const number = Number(text);
  if (/^\d*\.?\d+$/.test(text) && number <= 1) return number;
  throw usageError(name, `--${flag} ${text}; a share from 0 to 1 was expected`);
}

/** Never in the message: one of them is a key. */
function hex(flag: string, text: string, digits: number): string {
  if (text.length === digits && /^[0-9a-f]+$/i.test(text)) return text.toLowerCase();
  throw usageError(name, `--${flag}: ${digits} hexadecimal digits were expected`);
}

function endpoint(flag: string, text: string): { host: string; port: number } {
  const match = /^(.*):(\d{1,5})$/.exec(text);
  if (!match || Number(match[2]) > 65_535) throw usageError(name, `--${flag} ${text}; HOST:PORT was expected`);
  return { host: match[1] || "127.0.0.1", port: Number(match[2]) };
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}
