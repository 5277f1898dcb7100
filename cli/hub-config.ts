/** ecp config check|apply: is hub.yaml right, and what of it the wallet must know. */
import type { HubConfiguration } from "../agent/configuration.ts";
import type { PolicyMeter } from "../wallet/policy.ts";
import { type Command, exit, parseCommand } from "./command.ts";
import { readHubFile } from "./hub-configuration.ts";
import { configOption } from "./hub-options.ts";
import { readPolicy, writePolicy } from "./hub-wallet.ts";

export const hubConfigCheck: Command = {
  summary: "is hub.yaml right? says file, line and column where not",
  usage: "Usage: ecp config check [--config hub.yaml]",
  async run(args) {
    const { values } = parseCommand("ecp config check", args, configOption, []);
    const { configuration } = readHubFile(values.config);
    const { lines, meters } = configuration;
    process.stdout.write(
      `${values.config} is right: ${count(lines.length, "line")}, ${count(meters.length, "meter")}, ` +
        `uplink ${uplinkText(configuration)}\n`,
    );
    return exit.ok;
  },
};

export const hubConfigApply: Command = {
  summary: "write what the wallet must know (meters, limits) to its policy",
  usage: `Usage: ecp config apply [--config hub.yaml]

Writes meters, seal_every_s, when_full, retention_days, whom records are encrypted to, and the slot and batch of LoRaWAN's rows into the
wallet's policy.cbor; pinned full nodes and declared changes of meters stay. The wallet
obeys it from its next start on, and seals the new policy's digest as an event.`,
  async run(args) {
    const { values } = parseCommand("ecp config apply", args, configOption, []);
    const hub = readHubFile(values.config);
    const before = readPolicy(hub);
    writePolicy(hub, { ...before, ...hub.policy, meters: withInstallations(hub.policy.meters, before.meters) });
    process.stdout.write("The wallet's policy is written. Restart the wallet to make it count.\n");
    return exit.ok;
  },
};

function uplinkText({ mqtt, lora }: HubConfiguration): string {
  const ways = [
    ...(mqtt ? [`${mqtt.protocol}://${mqtt.host}:${mqtt.port}`] : []),
    ...(lora ? [`LoRaWAN ${lora.region} by ${lora.modem.family} at ${lora.modem.path}`] : []),
  ];
  return ways.join(" and ") || "none (records are kept, and not sent)";
}

/** What `ecp meter replaced` declared stays, whatever else changes: only it may begin a register anew. */
function withInstallations(meters: readonly PolicyMeter[], before: readonly PolicyMeter[]): PolicyMeter[] {
  return meters.map((meter) => {
    const known = before.find(({ index }) => index === meter.index);
    return known ? { ...meter, installation: known.installation, installationReason: known.installationReason } : meter;
  });
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
