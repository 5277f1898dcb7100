/** ecp-node dump: the store's content as lines, the same for every order of arrival. */
import { once } from "node:events";
import { canonicalDump } from "../fullnode/canonical-dump.ts";
import { openStore } from "../fullnode/store-address.ts";
import { type Command, exit, parseCommand, usageError } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";

export const nodeDump: Command = {
  summary: "write what the store holds as lines of JSON, to compare stores",
  usage: `Usage: ecp-node dump --canonical --data DIR

Lines of JSON of devices, epochs, records (by their digests), evidence, rows, quarter hours and exchanges of meters, in a fixed order.
They depend on what devices have sent and owners have said, and not on when, in which order or how often it came: two nodes that
took the same give the same bytes. Left out are times of arrival, receipts, corrections and quarantine.`,

  async run(args) {
    const options = { ...dataOption, canonical: { type: "boolean" } } as const;
    const { values } = parseCommand("ecp-node dump", args, options, []);
    const data = requireData("ecp-node dump", values.data);
    if (!values.canonical) throw usageError("ecp-node dump", "no --canonical, which is the one form there is");
    const store = await openStore(data);
    try {
      for await (const line of canonicalDump(store))
        if (!process.stdout.write(`${line}\n`)) await once(process.stdout, "drain");
      return exit.ok;
    } finally {
      await store.close();
    }
  },
};
