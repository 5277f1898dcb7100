/**
 * Which store the tests of the record path run over: the embedded one, or one on PostgreSQL where another test file has said so before
 * it imported them.
 */
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Store } from "../../fullnode/store.ts";
import { storeAddressOf } from "../../fullnode/store-address.ts";
import { openPostgresStore } from "../../fullnode/store-postgres.ts";
import { isPassingPostgresError } from "../../fullnode/store-postgres-failure.ts";
import { createSqliteStore, openSqliteStore } from "../../fullnode/store-sqlite.ts";
import { asJsonQuery, type PostgresPlace, postgresUrl, queryNow } from "./postgres-fixture.ts";

const nodeName = "test node";
let server: PostgresPlace | undefined;
let databases = 0;
const template = "contract_template";
const prepared = new WeakSet<PostgresPlace>();

/** All stores made from now on are databases of this server; without one they are embedded again. */
export function usePostgres(place: PostgresPlace | undefined): void {
  server = place;
  if (place === undefined || prepared.has(place)) return;
  prepared.add(place);
  queryNow(place, "postgres", `CREATE DATABASE ${template}`);
  // As SQLite has it, for the tests' own queries.
  queryNow(place, template, "CREATE FUNCTION hex(bytea) RETURNS text LANGUAGE sql RETURN upper(encode($1, 'hex'))");
}

/** A store, and how to open it again and to read it past its code. */
export interface ContractStore {
  readonly kind: "sqlite" | "postgres";
  /** Of the database. */
  readonly url?: string;
  create(): Store;
  open(): Store;
  query(sql: string, parameters: readonly (string | number)[]): Record<string, unknown>[];
  /** Changes the database past the store. */
  change(sql: string): void;
}

export function contractStore(data: string): ContractStore {
  if (server === undefined)
    return {
      kind: "sqlite",
      create: () => createSqliteStore(data, nodeName),
      open: () => openSqliteStore(data),
      query: (sql, parameters) => {
        const database = new DatabaseSync(join(data, "node.db"), { readOnly: true });
        try {
          return database.prepare(sql).all(...parameters);
        } finally {
          database.close();
        }
      },
      change: (sql) => {
        const database = new DatabaseSync(join(data, "node.db"));
        database.exec(sql);
        database.close();
      },
    };
  const place = server;
  // A folder that names a database already has that one.
  const named = storeAddressOf(data)?.url;
  const database = named ? databaseOf(named) : `contract_${process.pid}_${databases++}`;
  const address = { url: postgresUrl(place, database) };
  return {
    kind: "postgres",
    url: address.url,
    create: () => {
      queryNow(place, "postgres", `CREATE DATABASE ${database} TEMPLATE ${template}`);
      return lateStore(openPostgresStore({ address, create: { name: nodeName, timeZone: "UTC" } }));
    },
    open: () => lateStore(openPostgresStore({ address })),
    query: (sql, parameters) => queryNow(place, database, asJsonQuery(sql, parameters)),
    change: (sql) => void queryNow(place, database, sql),
  };
}

function databaseOf(url: string): string {
  return /\/(\w+)\?/.exec(url)?.[1] ?? "";
}

/** A store that is being opened, for callers that cannot wait: each question waits instead. */
function lateStore(opening: Promise<Store>): Store {
  opening.catch(() => undefined); // told to whoever asks
  return new Proxy({ nodeName, timeZone: "UTC", isPassing: isPassingPostgresError } as Store, {
    get: (target, name) => {
      if (Object.hasOwn(target, name)) return Reflect.get(target, name);
      if (name === "lorawan") return lateStore(opening.then(({ lorawan }) => lorawan as unknown as Store));
      return async (...parameters: unknown[]) => {
        const store = await opening;
        return await (Reflect.get(store, name) as (...all: unknown[]) => unknown).apply(store, parameters);
      };
    },
  });
}
