/** ecp-node init: makes a full node's data folder with its keys and its empty store. */
import { existsSync } from "node:fs";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { isTimeZone } from "../fullnode/calendar.ts";
import { copyNodeKeys, createNodeKeys } from "../fullnode/node-keys.ts";
import type { PostgresAddress } from "../fullnode/postgres-connection.ts";
import { hasPassword, isPostgresUrl, storeAddressOf, writeStoreAddress } from "../fullnode/store-address.ts";
import { openPostgresStore } from "../fullnode/store-postgres.ts";
import { createSqliteStore } from "../fullnode/store-sqlite.ts";
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";
import { makeFolder } from "./output-file.ts";
import { readPassword } from "./password-file.ts";
import { shellWord } from "./shell-word.ts";

const nameLengthMax = 64;

export const nodeInit: Command = {
  summary: "make the data folder of a new full node: keys and an empty store",
  usage: `Usage: ecp-node init --data DIR [--name NAME] [--time-zone ZONE] [--keys-from DIR2] [--json]
                     [--store postgres://USER@HOST/DATABASE [--store-password-file F]]

Makes DIR with node.key (the node's secret keys, mode 600) and node.db (its store). Nothing that is there is ever
overwritten. NAME is what devices' owners see in the enrolment answer; the host's name unless given.
ZONE, such as Europe/Berlin, is that of the days and months of \`ecp-node energy\`; UTC unless given.

--store      keeps records in a PostgreSQL database instead of node.db. DIR/store.json names it, so that every command finds it. Several
             nodes may share one: the first makes its tables, and its name and time zone stay. The password stands in F (mode 600), or
             where PGPASSFILE or ~/.pgpass says; over a Unix socket: postgres://USER@/DATABASE?host=FOLDER.
--keys-from  gives this node the keys of another one on the same store, so that devices know both by one name; nodes that divide
             records (\`ecp-node run --share\`) need it, since records are encrypted to one key. Or those of one whose store is lost: two
             stores under one key would promise devices what the other has not.`,

  async run(args) {
    const options = {
      ...dataOption,
      name: { type: "string" },
      "time-zone": { type: "string" },
      store: { type: "string" },
      "store-password-file": { type: "string" },
      "keys-from": { type: "string" },
      json: { type: "boolean" },
    } as const;
    const { values } = parseCommand("ecp-node init", args, options, []);
    const data = requireData("ecp-node init", values.data);
    const name = values.name ?? hostname().slice(0, nameLengthMax);
    if (name === "" || name.length > nameLengthMax)
      throw usageError("ecp-node init", `--name of ${name.length} characters, 1 to ${nameLengthMax} are possible`);
    const timeZone = values["time-zone"] ?? "UTC";
    if (!isTimeZone(timeZone))
      throw usageError("ecp-node init", `the time zone ${timeZone}, which this machine does not know`);
    const address = parseStore(values.store, values["store-password-file"]);
    const keysFrom = values["keys-from"];
    // The store first: its server may be away, and a folder that is half made would be in the way.
    if (address) await makePostgresStore(data, address, { name, timeZone });
    makeFolder(data, 0o700);
    const keys =
      keysFrom === undefined ? createNodeKeys(data, Math.floor(Date.now() / 1000)) : copyNodeKeys(keysFrom, data);
    if (address) writeStoreAddress(data, address);
    else createSqliteStore(data, name, timeZone).close();
    const store = address?.url ?? `${data}/node.db`;
    if (values.json) process.stdout.write(`${JSON.stringify({ node: keys.did, name, data, store })}\n`);
    else
      process.stdout.write(
        `Full node "${name}" is made in ${data}\n` +
          `  its name    ${keys.did}\n` +
          `  keys        ${data}/node.key (keep a copy in a safe place: devices take receipts from no other)\n` +
          `  store       ${store}\n\n` +
          `Next: ecp-node run --data ${shellWord(data)}\n` +
          `      ecp-node enrol request.cose --data ${shellWord(data)} --out answer.cose\n` +
          `          takes a device by the file that \`ecp enrol\` wrote on it\n`,
      );
    return exit.ok;
  },
};

function parseStore(url: string | undefined, passwordFile: string | undefined): PostgresAddress | undefined {
  if (url === undefined) {
    if (passwordFile !== undefined) throw usageError("ecp-node init", "--store-password-file without --store");
    return undefined;
  }
  if (hasPassword(url))
    throw usageError(
      "ecp-node init",
      "a password on the command line, where others can see it: use --store-password-file or PGPASSFILE",
    );
  if (!isPostgresUrl(url))
    throw usageError("ecp-node init", `--store ${url}, which is not postgres://USER@HOST/DATABASE`);
  if (passwordFile === undefined) return { url };
  if (!/^\w+:\/\/[^/?#@]+@/.test(url))
    throw usageError("ecp-node init", "--store-password-file, and no USER@ in --store");
  readPassword(passwordFile, "the database's password");
  return { url, passwordFile: resolve(passwordFile) };
}

async function makePostgresStore(
  data: string,
  address: PostgresAddress,
  create: { name: string; timeZone: string },
): Promise<void> {
  if (existsSync(join(data, "node.db")) || storeAddressOf(data))
    throw new CommandError(exit.cannotCreate, {
      expected: "a data folder without a store",
      got: "one that has a store",
      where: data,
      todo: "use another folder with --data",
    });
  await (await openPostgresStore({ address, create })).close();
}
