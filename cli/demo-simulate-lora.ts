/** ecp-demo simulate lora: a LoRaWAN on this machine, from a modem on a pty to a network server's MQTT. */
import { modemFamilies } from "../drivers/lora/modem.ts";
import { regionNames } from "../drivers/lora/region.ts";
import { usableDataRates } from "../simulator/lora-end-device.ts";
import type { UplinkEvent } from "../simulator/lora-radio.ts";
import { NotASymlink } from "../simulator/pty.ts";
import { simulatedDevice } from "../simulator/simulated-identities.ts";
import { runSimulatedLora, type SimulatedLora } from "../simulator/simulated-lora.ts";
import { type Command, CommandError, exit, systemCode } from "./command.ts";
import { parseRadio, type RadioArguments, type RadioFault, radioFaults } from "./demo-radio-options.ts";

const name = "ecp-demo simulate lora";

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
--server    chirpstack or tts: whose JSON and topics (chirpstack)
--listen    where the broker listens (127.0.0.1:0, any port); --udp the network server's port for gateways
--loss      the share of frames that are lost, both ways: 0.1; or one way by --loss-up, --loss-down. Each --gateways loses its own
--dev-eui, --join-eui, --app-key   of the one device that the server knows (${simulatedDevice.devEui}, ${simulatedDevice.joinEui},
            ${simulatedDevice.appKey}); the modem has them too, unless --unprovisioned
--fault     may be repeated: ${radioFaults}.
            Downlinks late, events told twice, joins unanswered; every so many seconds another data rate, a modem that
            starts anew, gateways without backhaul for as long
--json      one JSON object a line: started, then each frame with its airtime and what the radio measured in the last hour`,

  async run(args) {
    const radio = parseRadio(name, args);
    let lora: SimulatedLora | undefined;
    lora = await runSimulatedLora({
      ...radio.options,
      onUplink: (event) => {
        if (lora) process.stdout.write(frameLine(event, lora, radio.json));
      },
    }).catch((error: Error & { syscall?: string }) => {
      throw failed(error, radio.options.link);
    });
    for (const fault of radio.faults) begin(fault, lora);
    process.stdout.write(startedLine(lora, radio));
    await new Promise<void>((resolve) => {
      process.once("SIGTERM", resolve);
      process.once("SIGINT", resolve);
      process.stdout.on("error", () => resolve());
      if (radio.exitsWithParent) process.stdin.resume().once("end", resolve).once("close", resolve);
    });
    await lora.close();
    process.stdin.destroy();
    return exit.ok;
  },
};

function startedLine(
  { path, brokerAddress, udpAddress, world }: SimulatedLora,
  { options: { link, family, region, server }, json }: RadioArguments,
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

function begin(fault: RadioFault, { world, modem, timing }: SimulatedLora): void {
  const { server, gateways } = world;
  const devEui = world.devices[0]!.devEui;
  const rates = usableDataRates(modem.device.region);
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

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}
