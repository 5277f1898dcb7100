/** ecp-node quarantine: devices that nobody has enrolled, and what is kept of them. */
import { openStore } from "../fullnode/store-address.ts";
import { didKeyOf, publicKeyOfDid } from "../protocol/public-key.ts";
import { type Command, exit, parseCommand } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";
import { formatTable, localTime, terminalColumns } from "./table.ts";

const shownMax = 1_000;
const columns = [
  { title: "device" },
  { title: "records", align: "right" },
  { title: "first" },
  { title: "last" },
] as const;

export const nodeQuarantine: Command = {
  summary: "list what is kept of devices that nobody has enrolled",
  usage: `Usage: ecp-node quarantine --data DIR [--json]

Records that the key of their name has signed, of devices that are not enrolled: kept, within bounds, never in totals, without receipts. They join the
device's chain as soon as it is enrolled (ecp-node enrol). What contradicts the chain of an enrolled device is evidence: ecp-node devices.
--json   one JSON object a line for each device`,

  async run(args) {
    const { values } = parseCommand("ecp-node quarantine", args, { ...dataOption, json: { type: "boolean" } }, []);
    const store = await openStore(requireData("ecp-node quarantine", values.data));
    try {
      const entries = (await store.quarantined(shownMax)).map(({ name, ...entry }) => ({
        device: didKeyOf(publicKeyOfDid(name)),
        reason: "unknown-device",
        ...entry,
      }));
      if (values.json) for (const entry of entries) process.stdout.write(`${JSON.stringify(entry)}\n`);
      else if (entries.length === 0) process.stdout.write("Nothing is in quarantine.\n");
      else {
        const rows = entries.map(({ device, records, firstReceivedMs, lastReceivedMs }) => [
          ...[device, `${records}`, localTime(firstReceivedMs), localTime(lastReceivedMs)],
        ]);
        process.stdout.write(formatTable(columns, rows, terminalColumns()));
      }
      return exit.ok;
    } finally {
      await store.close();
    }
  },
};
