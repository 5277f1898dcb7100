/** ecp-node devices: who is enrolled, and what came from each. */

import type { DeviceSummary, Store } from "../fullnode/store.ts";
import { openStore } from "../fullnode/store-address.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { type Command, exit, parseCommand } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";
import { epochCause } from "./node-device.ts";
import { shellWord } from "./shell-word.ts";
import { formatTable, localTime, terminalColumns } from "./table.ts";

export const nodeDevices: Command = {
  summary: "list the enrolled devices and what is stored of each",
  usage: `Usage: ecp-node devices --data DIR [--json]

through  all records up to this sequence are stored
waiting  records stored above it, whose predecessors have not come yet
forks    records that contradict the device's chain: kept as evidence, not booked
Below the table stands what waits for you: epochs that are held, and forks.
--json   one JSON object a line for each device`,

  async run(args) {
    const { values } = parseCommand("ecp-node devices", args, { ...dataOption, json: { type: "boolean" } }, []);
    const data = requireData("ecp-node devices", values.data);
    const store = await openStore(data);
    try {
      const devices = await store.devices();
      process.stdout.write(
        values.json ? devices.map((device) => `${JSON.stringify(asJson(device))}\n`).join("") : asTable(devices),
      );
      if (!values.json)
        for (const device of devices) process.stdout.write(await whatWaits(store, device, shellWord(data)));
      return exit.ok;
    } finally {
      await store.close();
    }
  },
};

function isWaiting({ epochs }: DeviceSummary): boolean {
  return epochs.some(({ held, decision }) => held && decision === "none");
}

/** What the owner has to decide or to look into, with the words to type. */
async function whatWaits(store: Store, device: DeviceSummary, data: string): Promise<string> {
  const did = didKeyOf(device.publicKey);
  let text = "";
  for (const epoch of device.epochs) {
    if (!epoch.held || epoch.decision !== "none") continue;
    const words = `${device.name} ${epoch.epoch} --data ${data}`;
    text +=
      `\nHELD: epoch ${epoch.epoch} of ${did}\n` +
      `  why     ${await epochCause(store, device, epoch)}\n` +
      `  stored  ${epoch.records} records, acknowledged and NOT booked until you say:\n` +
      `          ecp-node epoch accept ${words}\n          ecp-node epoch reject ${words}\n`;
  }
  if (device.evidence === 0) return text;
  const epochs = device.epochs
    .filter(({ evidence }) => evidence > 0)
    .map(({ epoch, evidence }) => `${epoch} (${evidence})`);
  return (
    `${text}\nFORK: ${device.evidence} records of ${did} contradict what is stored, in epoch ${epochs.join(", ")}\n` +
    "  They are kept as evidence and not booked. Either an older card was put in, or two hubs have one key.\n" +
    "  Find out which; where a card was copied, retire its key and enrol the hub anew (docs/recovery.md).\n"
  );
}

function currentEpoch(device: DeviceSummary) {
  const epoch = device.epochs[0];
  const first = epoch?.spans[0];
  const through = first?.first === 1 ? first.last : 0;
  const waiting = (epoch?.spans ?? [])
    .filter((span) => span.first > through)
    .reduce((sum, span) => sum + span.last - span.first + 1, 0);
  return { epoch, through, waiting };
}

function asJson(device: DeviceSummary) {
  return {
    device: didKeyOf(device.publicKey),
    softwareId: device.softwareId,
    meters: device.meters,
    enrolled: new Date(device.enrolledMs).toISOString(),
    records: device.records,
    evidence: device.evidence,
    epochs: device.epochs.map((epoch) => ({
      epoch: epoch.epoch,
      held: epoch.held,
      decision: epoch.decision,
      records: epoch.records,
      settled: epoch.settled,
      evidence: epoch.evidence,
      ...(epoch.parent && { parent: epoch.parent }),
      ...(epoch.ended !== undefined && { ended: epoch.ended }),
      through: epoch.spans[0]?.first === 1 ? epoch.spans[0].last : 0,
      ranges: epoch.spans.filter(({ first }) => first !== 1).map(({ first, last }) => [first, last]),
      ...(epoch.lastReceivedMs > 0 && { lastReceived: new Date(epoch.lastReceivedMs).toISOString() }),
    })),
  };
}

function asTable(devices: readonly DeviceSummary[]): string {
  if (devices.length === 0) return "No device is enrolled yet. `ecp-node enrol FILE --data DIR` takes one.\n";
  const rows = devices.map((device) => {
    const { epoch, through, waiting } = currentEpoch(device);
    return [
      didKeyOf(device.publicKey),
      device.meters.map(({ name }) => name).join(", ") || "–",
      epoch && epoch.lastReceivedMs > 0 ? localTime(epoch.lastReceivedMs) : "never",
      `${device.records}`,
      `${through}`,
      `${waiting}`,
      `${device.evidence}`,
      isWaiting(device) ? "EPOCH HELD" : device.evidence > 0 ? "FORK" : "ok",
    ];
  });
  return formatTable(
    [
      { title: "device" },
      { title: "meters" },
      { title: "last record" },
      { title: "stored", align: "right" },
      { title: "through", align: "right" },
      { title: "waiting", align: "right" },
      { title: "forks", align: "right" },
      { title: "state" },
    ],
    rows,
    terminalColumns(),
  );
}
