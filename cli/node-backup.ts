/** ecp-node backup and restore: a copy of the store, made while the node runs, and a store made of it. */
import { loadNodeKeys } from "../fullnode/node-keys.ts";
import { backUp, restore, type StoreCounts } from "../fullnode/store-backup.ts";
import { type Command, exit, parseCommand, usageError } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";
import { shellWord } from "./shell-word.ts";

export const nodeBackup: Command = {
  summary: "save the store, while the node runs",
  usage: `Usage: ecp-node backup --data DIR --output FILE [--json]

Writes the store as it is at one moment to FILE (mode 600), checked, and its digest and counts to FILE.json: keep both together. Of
a store on PostgreSQL it is what pg_dump writes, which must be installed. Nothing is overwritten. The node's keys are NOT in it: keep a
copy of node.key apart, once; whoever has that can give receipts in the node's name.

A backup holds what was stored until then, and devices have let go of what they have a receipt for: make one often (docs/operating.md).`,

  async run(args) {
    const options = { ...dataOption, output: { type: "string" }, json: { type: "boolean" } } as const;
    const { values } = parseCommand("ecp-node backup", args, options, []);
    const data = requireData("ecp-node backup", values.data);
    const { output } = values;
    if (output === undefined || output === "") throw usageError("ecp-node backup", "--output FILE is missing");
    const { kind, sha256, counts } = await backUp(data, output, Date.now());
    process.stdout.write(
      values.json
        ? `${JSON.stringify({ output, kind, sha256, ...counts })}\n`
        : `Saved: ${output}\n  ${inWords(counts)}\n  its digest and counts are in ${output}.json; node.key is in neither\n`,
    );
    return exit.ok;
  },
};

export const nodeRestore: Command = {
  summary: "make the store of a backup",
  usage: `Usage: ecp-node restore FILE --data DIR [--json]

DIR holds node.key, and no store; or node.key and store.json, which names an empty PostgreSQL database. Everything of FILE is checked, and
compared with FILE.json where that is there. Stop the node, and every other one on the same database, before.

What was stored after the backup is not there any more, though devices have receipts for it: the node shows it as gaps. The devices still
hold what their journals have kept; docs/recovery.md says how to bring it back.`,

  async run(args) {
    const options = { ...dataOption, json: { type: "boolean" } } as const;
    const { values, positionals } = parseCommand("ecp-node restore", args, options, ["FILE"]);
    const data = requireData("ecp-node restore", values.data);
    const file = positionals[0] as string;
    loadNodeKeys(data); // without its keys the node could give no receipt
    const { counts, compared } = await restore(file, data);
    process.stdout.write(
      values.json
        ? `${JSON.stringify({ file, compared, ...counts })}\n`
        : `Restored: ${file}\n  ${inWords(counts)}\n` +
            (compared ? "" : `  there is no ${file}.json: the store is whole, but not compared with what was saved\n`) +
            `Next: ecp-node run --data ${shellWord(data)}, then look for gaps: ecp-node devices --data ${shellWord(data)}\n`,
    );
    return exit.ok;
  },
};

function inWords({ devices, records, rows, evidence, quarantine }: StoreCounts): string {
  return `${devices} devices, ${records} records, ${rows} rows, ${evidence} records of evidence, ${quarantine} in quarantine`;
}
