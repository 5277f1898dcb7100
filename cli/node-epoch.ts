/** ecp-node epoch: which epochs a device has begun, and what the owner says of those that are held. */
import { withRecordPath } from "../fullnode/offline-path.ts";
import type { DeviceSummary, Store } from "../fullnode/store.ts";
import { openStore } from "../fullnode/store-address.ts";
import { decide } from "../fullnode/succession.ts";
import { createLog } from "../platform/log.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { type Command, CommandError, exit, parseCommand } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";
import { epochCause, epochState, findDevice, findEpoch } from "./node-device.ts";
import { formatTable, localTime, terminalColumns } from "./table.ts";

/** So that a slip of the fingers decides nothing about another device. */
const nameLengthMin = 8;
/** How often settling is begun again where the disk is full or a running node is in the way. */
const settlingTriesMax = 5;

export const nodeEpochList: Command = {
  summary: "list the epochs of the devices, which are held and why",
  usage: `Usage: ecp-node epoch list [DEVICE] --data DIR [--json]

An epoch is a run of sequences that a wallet began. Booked are those of the enrolment, those that a rotation of the key announced,
and those that you have accepted. Any other is HELD: its records are stored and acknowledged, and not booked.`,

  async run(args) {
    const options = { ...dataOption, json: { type: "boolean" } } as const;
    const { values, positionals } = parseCommand("ecp-node epoch list", args, options, ["[DEVICE]"]);
    const data = requireData("ecp-node epoch list", values.data);
    const store = await openStore(data);
    try {
      const devices = await store.devices();
      const [wanted] = positionals;
      const listed = wanted === undefined ? devices : [findDevice(devices, wanted, data)];
      if (listed.length === 0 && !values.json) process.stdout.write("No device is enrolled yet.\n");
      for (const [i, device] of listed.entries())
        process.stdout.write(
          values.json ? await epochLines(store, device) : `${i > 0 ? "\n" : ""}${await epochTable(store, device)}`,
        );
      return exit.ok;
    } finally {
      await store.close();
    }
  },
};

async function epochLines(store: Store, device: DeviceSummary): Promise<string> {
  let lines = "";
  for (const epoch of device.epochs) {
    const { held, decision, records, settled, parent, ended, evidence } = epoch;
    const json = { device: didKeyOf(device.publicKey), epoch: epoch.epoch, held, decision, records, settled, evidence };
    const cause = await epochCause(store, device, epoch);
    lines += `${JSON.stringify({ ...json, cause, ...(parent && { parent }), ended })}\n`;
  }
  return lines;
}

async function epochTable(store: Store, device: DeviceSummary): Promise<string> {
  const rows = [];
  for (const epoch of device.epochs) {
    const { records, settled, lastReceivedMs, evidence } = epoch;
    const last = lastReceivedMs > 0 ? localTime(lastReceivedMs) : "never";
    const cause = await epochCause(store, device, epoch);
    rows.push([`${epoch.epoch}`, epochState(epoch), `${records}`, `${settled}`, `${evidence}`, last, cause]);
  }
  const columns = [
    { title: "epoch", align: "right" },
    { title: "state" },
    { title: "stored", align: "right" },
    { title: "booked", align: "right" },
    { title: "forks", align: "right" },
    { title: "last record" },
    { title: "why" },
  ] as const;
  return `${didKeyOf(device.publicKey)}\n\n${formatTable(columns, rows, terminalColumns())}`;
}

export const nodeEpochAccept: Command = {
  summary: "book an epoch that is held, now and from now on",
  usage: `Usage: ecp-node epoch accept DEVICE EPOCH --data DIR [--json]

Books what is stored of the epoch and what comes of it. DEVICE is a did:key, its part from z6Mk on, or a unique beginning of
that of ${nameLengthMin} characters or more. A value that was booked before is not booked again. May be said while the node runs, and again;
'epoch reject' takes it back for what comes.`,
  run: (args) => decideEpoch("accept", args),
};

export const nodeEpochReject: Command = {
  summary: "book no more of an epoch; what is booked stays booked",
  usage: `Usage: ecp-node epoch reject DEVICE EPOCH --data DIR [--json]

From now on nothing more of the epoch is booked; its records are stored and acknowledged as before, and what is booked stays booked.
DEVICE is a did:key, its part from z6Mk on, or a unique beginning of that of ${nameLengthMin} characters or more. Where a rotation announced the
epoch, the key of before is the device's again. May be said while the node runs, and again; 'epoch accept' takes it back.`,
  run: (args) => decideEpoch("reject", args),
};

async function decideEpoch(verb: "accept" | "reject", args: readonly string[]): Promise<number> {
  const command = `ecp-node epoch ${verb}`;
  const options = { ...dataOption, json: { type: "boolean" } } as const;
  const { values, positionals } = parseCommand(command, args, options, ["DEVICE", "EPOCH"]);
  const data = requireData(command, values.data);
  const [wantedDevice = "", wantedEpoch = ""] = positionals;
  const decision = verb === "accept" ? "accepted" : "rejected";
  const quiet = { publish: () => undefined, report: () => undefined, log: createLog("node") };
  return await withRecordPath(data, quiet, async (path, store) => {
    const find = async () => {
      const device = findDevice(await store.devices(), wantedDevice, data, nameLengthMin);
      return { device, epoch: findEpoch(device, wantedEpoch, command, data) };
    };
    const before = await find();
    const { device } = before;
    const number = before.epoch.epoch;
    const changed = await store.transaction({ devices: [device.id], places: [] }, async (tx) => {
      const stored = await tx.epoch(device.id, number);
      return stored !== undefined && (await decide(tx, device.id, stored, decision));
    });
    for (let tries = 0; isUnsettled((await find()).device); tries++) {
      if (tries === settlingTriesMax) throw notSettled(data);
      path.lookAround();
      await path.idle();
    }
    const after = (await find()).epoch;
    const booked = after.settled - before.epoch.settled;
    if (values.json) {
      const { records, settled, held } = after;
      const json = { device: didKeyOf(device.publicKey), epoch: number, decision, changed, held, records, settled };
      process.stdout.write(`${JSON.stringify({ ...json, booked })}\n`);
    } else {
      const left = after.records - after.settled;
      const told =
        verb === "accept"
          ? `${booked} records booked now, ${after.settled} in all${left > 0 ? `; ${left} wait for records before them` : ""}`
          : `${left} records stay stored and are not booked; ${after.settled} were booked before, and stay so`;
      process.stdout.write(
        `${verb === "accept" ? "Accepted" : "Rejected"}${changed ? "" : " before; nothing changed"}: ` +
          `epoch ${number} of ${didKeyOf(device.publicKey)}\n  ${told}\n`,
      );
    }
    return exit.ok;
  });
}

/** Whether something of the device that may be booked is not booked yet. */
function isUnsettled(device: DeviceSummary): boolean {
  return device.epochs.some(({ held, spans, settledThrough }) => {
    const through = spans[0]?.first === 1 ? spans[0].last : 0;
    return !held && settledThrough < through;
  });
}

function notSettled(data: string): CommandError {
  return new CommandError(exit.ioError, {
    expected: "to book what is stored of the epoch",
    got: "a store that did not take it: see the log above",
    where: data,
    todo: "free space on the data folder's disk; what you said is kept, and a running node goes on booking",
  });
}
