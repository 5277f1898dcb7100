/** ecp-node init: makes a full node's data folder with its keys and its empty store. */
import { hostname } from "node:os";
import { isTimeZone } from "../fullnode/calendar.ts";
import { createNodeKeys } from "../fullnode/node-keys.ts";
import { createSqliteStore } from "../fullnode/store-sqlite.ts";
import { type Command, exit, parseCommand, usageError } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";
import { makeFolder } from "./output-file.ts";
import { shellWord } from "./shell-word.ts";

const nameLengthMax = 64;

export const nodeInit: Command = {
  summary: "make the data folder of a new full node: keys and an empty store",
  usage: `Usage: ecp-node init --data DIR [--name NAME] [--time-zone ZONE] [--json]

Makes DIR with node.key (the node's secret keys, mode 600) and node.db (its store). Nothing that is there is ever
overwritten. NAME is what devices' owners see in the enrolment answer; the host's name unless given.
ZONE, such as Europe/Berlin, is that of the days and months of \`ecp-node energy\`; UTC unless given.`,

  async run(args) {
    const { values } = parseCommand(
      "ecp-node init",
      args,
      { ...dataOption, name: { type: "string" }, "time-zone": { type: "string" }, json: { type: "boolean" } },
      [],
    );
    const data = requireData("ecp-node init", values.data);
    const name = values.name ?? hostname().slice(0, nameLengthMax);
    if (name === "" || name.length > nameLengthMax)
      throw usageError("ecp-node init", `--name of ${name.length} characters, 1 to ${nameLengthMax} are possible`);
    const timeZone = values["time-zone"] ?? "UTC";
    if (!isTimeZone(timeZone))
      throw usageError("ecp-node init", `the time zone ${timeZone}, which this machine does not know`);
    makeFolder(data, 0o700);
    const keys = createNodeKeys(data, Math.floor(Date.now() / 1000));
    createSqliteStore(data, name, timeZone).close();
    if (values.json) process.stdout.write(`${JSON.stringify({ node: keys.did, name, data })}\n`);
    else
      process.stdout.write(
        `Full node "${name}" is made in ${data}\n` +
          `  its name    ${keys.did}\n` +
          `  keys        ${data}/node.key (keep a copy in a safe place: devices take receipts from no other)\n` +
          `  store       ${data}/node.db\n\n` +
          `Next: ecp-node run --data ${shellWord(data)}\n` +
          `      ecp-node enrol request.cose --data ${shellWord(data)} --out answer.cose\n` +
          `          takes a device by the file that \`ecp enrol\` wrote on it\n`,
      );
    return exit.ok;
  },
};
