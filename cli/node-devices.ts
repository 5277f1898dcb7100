/** ecp-node devices: who is enrolled, and what came from each. */

import type { DeviceSummary } from "../fullnode/store.ts";
import { openSqliteStore } from "../fullnode/store-sqlite.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { type Command, exit, parseCommand } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";
import { formatTable, localTime } from "./table.ts";

export const nodeDevices: Command = {
  summary: "list the enrolled devices and what is stored of each",
  usage: `Usage: ecp-node devices --data DIR [--json]

through  all records up to this sequence are stored
waiting  records stored above it, whose predecessors have not come yet
forks    records that contradict the device's chain: kept as evidence, not booked
--json   one JSON object a line for each device`,

  async run(args) {
    const { values } = parseCommand("ecp-node devices", args, { ...dataOption, json: { type: "boolean" } }, []);
    const store = openSqliteStore(requireData("ecp-node devices", values.data));
    try {
      const devices = store.devices();
      process.stdout.write(
        values.json ? devices.map((device) => `${JSON.stringify(asJson(device))}\n`).join("") : asTable(devices),
      );
      return exit.ok;
    } finally {
      store.close();
    }
  },
};

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
      device.epochs.some(({ held }) => held) ? "an epoch is held" : device.evidence > 0 ? "fork" : "ok",
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
  );
}
