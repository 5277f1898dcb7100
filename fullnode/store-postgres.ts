/**
 * The store on a PostgreSQL server, for one node or several that share it. A transaction holds the rows of the devices that it
 * changes, in their order, so two nodes never work on one device at a time and never wait for each other in a circle; each such
 * row counts the changes, by which a node sees that what it remembers of a device is old.
 */
import { strict as assert } from "node:assert";
import type pg from "pg";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { NodeError } from "./node-error.ts";
import { type Connection, openPool, type PostgresAddress, type PostgresRow, run } from "./postgres-connection.ts";
import type {
  BatchScope,
  DeviceSummary,
  Enrolment,
  EpochKey,
  QuarantinedRecord,
  RecordPlace,
  Store,
  StoredDevice,
  StoredEpoch,
  StorePlace,
  StoreTransaction,
} from "./store.ts";
import { asPostgresNodeError, isConflict, isPassingPostgresError } from "./store-postgres-failure.ts";
import { PostgresLorawan } from "./store-postgres-lorawan.ts";
import { MissingPartitions, Partitions, schemaLock } from "./store-postgres-partitions.ts";
import { PostgresReading } from "./store-postgres-reading.ts";
import { epochKey, placeKey, readBytes, readEpochKeys, readEpochs, readSeats } from "./store-postgres-reads.ts";
import { postgresMigrations } from "./store-postgres-schema.ts";
import { PostgresTransaction } from "./store-postgres-transaction.ts";

const triesMax = 10;
/**
 * Longer than any statement of a batch takes, and than the server lets one wait for a lock. Where a server's machine or the way to it is
 * gone without a word, nothing else would end the waiting before TCP does, a quarter of an hour later.
 */
const answerTimeoutMs = 120_000;
/** Of how many devices the version is remembered; beyond, all that is known is read anew. */
const rememberedDevicesMax = 200_000;
/** A receipt promises what these keep through a power cut. */
const demanded = { fsync: "on", full_page_writes: "on", synchronous_commit: "on" };

export interface PostgresStoreOptions {
  readonly address: PostgresAddress;
  /** Makes the tables of a new store, unless another node has done so already: then that one's name and time zone stay. */
  readonly create?: Meta;
  /** How long a statement may take; for tests. */
  readonly answerTimeoutMs?: number;
}

interface Meta {
  readonly name: string;
  /** IANA name. */
  readonly timeZone: string;
}

/** Opens the store in a database; one of an older version is brought up to date. Throws NodeError. */
export async function openPostgresStore(options: PostgresStoreOptions): Promise<PostgresStore> {
  const { address, create } = options;
  const opening = openPool(address); // a migration may take its time
  try {
    await demandDurability(opening, address.url);
    const meta = await migrate(opening, address.url, create);
    return new PostgresStore(openPool(address, options.answerTimeoutMs ?? answerTimeoutMs), meta);
  } catch (error) {
    throw asPostgresNodeError(error, address.url);
  } finally {
    await opening.end();
  }
}

/** Checked, not believed. */
async function demandDurability(pool: pg.Pool, where: string): Promise<void> {
  for (const [name, wanted] of Object.entries(demanded)) {
    const { rows } = await pool.query(`SHOW ${name}`);
    const got = rows[0]?.[name];
    if (got !== wanted)
      throw new NodeError("store-not-durable", {
        expected: `a PostgreSQL server with ${name} = ${wanted}: receipts promise that records survive a power cut`,
        got: `${name} = ${got}`,
        where,
        todo: `set ${name} = ${wanted} in postgresql.conf`,
      });
  }
}

async function migrate(pool: pg.Pool, where: string, create: Meta | undefined): Promise<Meta> {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    await client.query(`SELECT pg_advisory_xact_lock(${schemaLock})`); // nodes that start together make the tables once
    const { rows: found } = await client.query("SELECT to_regclass('meta') AS meta, to_regclass('records') AS records");
    const isNew = !found[0]?.meta;
    if (isNew && found[0]?.records)
      throw new NodeError("store-damaged", {
        expected: "an empty database, or the store of a full node",
        got: "a database of another program",
        where,
        todo: "give the node a database of its own",
      });
    if (isNew && create === undefined)
      throw new NodeError("data-missing", {
        expected: "a database with the store of a full node",
        got: "one without",
        where,
        todo: "ecp-node init --store makes it; or restore it from a backup with ecp-node restore",
      });
    if (isNew) await client.query("CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL)");
    const meta = new Map(
      (await client.query("SELECT key, value FROM meta")).rows.map(({ key, value }) => [key, value]),
    );
    const version = Number(meta.get("schema") ?? 0);
    if (version > postgresMigrations.length)
      throw new NodeError("store-newer", {
        expected: `a store of version ${postgresMigrations.length} or older`,
        got: `version ${version}`,
        where,
        todo: "use the ecp-node that wrote it, or a newer one",
      });
    for (const migration of postgresMigrations.slice(version)) await client.query(migration);
    const name: string = meta.get("name") ?? create?.name ?? "node";
    const timeZone: string = meta.get("time-zone") ?? create?.timeZone ?? "UTC";
    for (const [key, value] of Object.entries({ schema: postgresMigrations.length, name, "time-zone": timeZone }))
      await client.query("INSERT INTO meta VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", [
        key,
        `${value}`,
      ]);
    await commit(client);
    return { name, timeZone };
  } catch (error) {
    await client.query("ROLLBACK").catch(() => undefined);
    throw error;
  } finally {
    client.release();
  }
}

/** PostgreSQL answers the COMMIT of a transaction in which something failed with a rollback, and no error. */
async function commit(client: Connection): Promise<void> {
  const { command } = await client.query("COMMIT");
  assert.equal(command, "COMMIT", "the transaction was rolled back");
}

export class PostgresStore implements Store {
  readonly nodeName: string;
  readonly timeZone: string;
  readonly #pool: pg.Pool;
  readonly lorawan: PostgresLorawan;
  readonly #reading: PostgresReading;
  readonly #partitions: Partitions;
  /** As this store left them, or found them. */
  readonly #versions = new Map<number, number>();
  #forgotten = false;
  /** Changes that concern everyone and that this store made itself. */
  #ownChanges = 0;

  constructor(pool: pg.Pool, { name, timeZone }: Meta) {
    this.#pool = pool;
    // The server, or whoever takes its place, may know less by now than it had said: then equal versions mean nothing.
    pool.on("error", () => this.#forgetVersions());
    this.nodeName = name;
    this.timeZone = timeZone;
    this.#reading = new PostgresReading(pool);
    this.lorawan = new PostgresLorawan(pool);
    this.#partitions = new Partitions(pool, ["rows", "slots"], Date.now);
  }

  isPassing(error: unknown): boolean {
    return isPassingPostgresError(error);
  }

  async transaction<T>(scope: BatchScope, work: (tx: StoreTransaction) => Promise<T>): Promise<T> {
    let conflicts = 0;
    for (let again = false; ; again = true) {
      try {
        return await this.#attempt(scope, work, again);
      } catch (error) {
        // Not counted: each time there are months less that can be missing.
        if (error instanceof MissingPartitions) await this.#partitions.make(error.months);
        else if (!isConflict(error) || ++conflicts === triesMax) throw error;
      }
    }
  }

  /** @param again the work has run before and was undone: what it remembers of the devices is not so */
  async #attempt<T>(scope: BatchScope, work: (tx: StoreTransaction) => Promise<T>, again: boolean): Promise<T> {
    const devices = [...new Set(scope.devices)];
    return await this.#inTransaction(async (client) => {
      const locked = await this.#lock(client, devices);
      const foreign = again ? new Set(devices) : this.#foreignOf(locked);
      const inside = new PostgresTransaction(client, scope, this.#partitions);
      const result = await work({ ...inside.operations(), foreign });
      const { changed, concernsEveryone } = await inside.finish();
      for (const device of changed) locked.set(device, (locked.get(device) ?? 0) + 1);
      if (changed.length > 0)
        await run(client, "UPDATE device_versions SET version = version + 1 WHERE device = ANY($1::int[])", [changed]);
      return {
        concernsEveryone,
        result,
        committed: () => {
          for (const [device, version] of locked) this.#versions.set(device, version);
          if (this.#versions.size > rememberedDevicesMax) this.#forgetVersions();
        },
      };
    });
  }

  /** Runs work between BEGIN and COMMIT. What concerns everyone is counted last, so that nobody waits for a device with that row in hand. */
  async #inTransaction<T>(
    work: (client: Connection) => Promise<{ result: T; concernsEveryone: boolean; committed?: () => void }>,
  ): Promise<T> {
    const client = await this.#pool.connect();
    let broken: unknown;
    try {
      await client.query("BEGIN");
      const { result, concernsEveryone, committed } = await work(client);
      if (concernsEveryone) await client.query("UPDATE common_changes SET changes = changes + 1");
      await commit(client); // point of no return: from here a power cut loses nothing of it
      if (concernsEveryone) this.#ownChanges++;
      committed?.();
      return result;
    } catch (error) {
      // A connection that is not sound is not asked anything more: it might wait as long again.
      if (isPassingPostgresError(error) && !isConflict(error)) broken = error;
      else
        await client.query("ROLLBACK").catch((failure: unknown) => {
          broken = failure;
        });
      if (broken !== undefined) this.#forgetVersions();
      throw error;
    } finally {
      client.release(broken !== undefined);
    }
  }

  async #lock(client: Connection, devices: readonly number[]): Promise<Map<number, number>> {
    if (devices.length === 0) return new Map();
    const rows = await run(
      client,
      "SELECT device, version FROM device_versions WHERE device = ANY($1::int[]) ORDER BY device FOR UPDATE",
      [devices],
    );
    return new Map(rows.map(({ device, version }) => [device as number, version as number]));
  }

  /** What anybody remembers of any device is to be read anew. */
  #forgetVersions(): void {
    this.#versions.clear();
    this.#forgotten = true;
  }

  #foreignOf(locked: ReadonlyMap<number, number>): "all" | ReadonlySet<number> {
    if (this.#forgotten) {
      this.#forgotten = false;
      return "all";
    }
    const foreign = new Set<number>();
    for (const [device, version] of locked) {
      const known = this.#versions.get(device);
      if (known !== undefined && known !== version) foreign.add(device);
    }
    return foreign;
  }

  async foreignChanges(): Promise<number> {
    const [row] = await run(this.#pool, "SELECT changes FROM common_changes");
    return (row?.changes as number) - this.#ownChanges;
  }

  async device(name: string): Promise<StoredDevice | undefined> {
    const [row] = await run(this.#pool, "SELECT * FROM devices WHERE name = $1", [name]);
    return row && deviceOf(row);
  }

  async enrol(enrolment: Enrolment): Promise<boolean> {
    const { name, publicKey, kid, currentKey, share, softwareId, meters, request, requestDigest, enrolledMs } =
      enrolment;
    return await this.#inTransaction(async (client) => {
      const [known] = await run(client, "SELECT id FROM devices WHERE name = $1", [name]);
      if (known) await this.#lock(client, [known.id as number]);
      const [before] = await run(client, "SELECT current_key FROM devices WHERE name = $1", [name]);
      const [added] = await run(
        client,
        `INSERT INTO devices
           (name, public_key, kid, current_key, share, software, meters, request, request_digest, enrolled_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (name) DO UPDATE SET share = excluded.share, software = excluded.software, meters = excluded.meters,
           request = excluded.request, request_digest = excluded.request_digest
         RETURNING id, (xmax = 0) AS is_new`,
        [
          ...[name, publicKey, kid, currentKey, share, softwareId, JSON.stringify(meters)],
          ...[request, requestDigest, enrolledMs],
        ],
      );
      const id = added?.id as number;
      await run(
        client,
        "INSERT INTO device_versions VALUES ($1, 1) ON CONFLICT (device) DO UPDATE SET version = device_versions.version + 1",
        [id],
      );
      // A request of before a rotation must not bring the old key back.
      const key = before?.current_key as Uint8Array | undefined;
      if (key && enrolment.earlier.some((one) => equalBytes(one.publicKey, key)))
        await run(client, "UPDATE devices SET current_key = $1 WHERE id = $2", [currentKey, id]);
      const inside = new PostgresTransaction(client, { devices: [id], places: [] }, this.#partitions);
      await this.#agreeToEpochs(client, inside, id, enrolment);
      await inside.finish();
      return { result: added?.is_new === true, concernsEveryone: true };
    });
  }

  /** The epoch of an enrolment and those before it are agreed to; an epoch that somebody else has begun gives way. */
  async #agreeToEpochs(
    client: Connection,
    inside: PostgresTransaction,
    device: number,
    { epoch, currentKey, earlier, enrolledMs }: Enrolment,
  ): Promise<void> {
    const agreed = { held: false, decision: "accepted" } as const;
    for (const one of [...earlier, { epoch, publicKey: currentKey }]) {
      const known = await inside.epoch(device, one.epoch);
      if (known === undefined)
        await run(client, "INSERT INTO epochs (device, epoch, held, first_ms, last_ms) VALUES ($1, $2, 0, $3, 0)", [
          ...[device, one.epoch, enrolledMs],
        ]);
      else if (!equalBytes(known.publicKey, one.publicKey)) {
        if (!known.held || known.decision !== "none") continue;
        await inside.evictEpoch(device, one.epoch, "other-key");
      } else if (one.epoch !== epoch && known.decision !== "none") continue;
      await inside.updateEpoch(device, one.epoch, { ...agreed, publicKey: one.publicKey });
    }
  }

  async epochKeys(device: number): Promise<EpochKey[]> {
    return await readEpochKeys(this.#pool, device);
  }

  async enrolmentRequest(device: number): Promise<Uint8Array | undefined> {
    const [row] = await run(this.#pool, "SELECT request FROM devices WHERE id = $1", [device]);
    return row?.request as Uint8Array | undefined;
  }

  async recordBytes(device: number, place: RecordPlace): Promise<Uint8Array | undefined> {
    return await readBytes(this.#pool, device, place);
  }

  async digests(places: readonly StorePlace[]): Promise<(Uint8Array | undefined)[]> {
    const seats = await readSeats(this.#pool, places);
    return places.map((place) => seats.get(placeKey(place))?.digest);
  }

  async epochsToSettle(limit: number): Promise<{ device: number; epoch: number }[]> {
    return (await run(
      this.#pool,
      "SELECT device, epoch FROM epochs WHERE held = 0 AND settled_through < through LIMIT $1",
      [limit],
    )) as unknown as { device: number; epoch: number }[];
  }

  async releasedQuarantine(limit: number): Promise<QuarantinedRecord[]> {
    return (await run(
      this.#pool,
      `SELECT q.name, q.digest, q.bytes FROM quarantine q JOIN devices d ON d.name = q.name
       ORDER BY q.name, q.epoch, q.sequence LIMIT $1`,
      [limit],
    )) as unknown as QuarantinedRecord[];
  }

  async quarantineCount(name: string): Promise<{ ofName: number; total: number }> {
    const [row] = await run(
      this.#pool,
      `SELECT (SELECT count(*) FROM quarantine WHERE name = $1) AS "ofName", (SELECT count(*) FROM quarantine) AS total`,
      [name],
    );
    return row as unknown as { ofName: number; total: number };
  }

  async devices(): Promise<DeviceSummary[]> {
    const devices = await run(this.#pool, "SELECT * FROM devices ORDER BY enrolled_ms, id");
    const counts = await run(
      this.#pool,
      `SELECT device, epoch, e.last_ms, count(r.sequence) AS records, coalesce(sum(r.settled), 0)::bigint AS settled
       FROM epochs e LEFT JOIN records r USING (device, epoch) GROUP BY device, epoch, e.last_ms ORDER BY e.last_ms DESC, epoch`,
    );
    const epochs = await readEpochs(this.#pool, counts as unknown as { device: number; epoch: number }[]);
    return devices.map((row) => {
      const device = deviceOf(row);
      const own = counts
        .filter((one) => one.device === device.id)
        .map((one) => ({
          ...(epochs.get(epochKey({ device: device.id, epoch: one.epoch as number }))?.epoch as StoredEpoch),
          lastReceivedMs: one.last_ms as number,
          records: one.records as number,
          settled: one.settled as number,
        }));
      return {
        ...device,
        records: own.reduce((sum, { records }) => sum + records, 0),
        evidence: own.reduce((sum, { evidence }) => sum + evidence, 0),
        epochs: own,
      };
    });
  }

  deviceNames: Store["deviceNames"] = (limit) => this.#reading.deviceNames(limit);
  deviceStates: Store["deviceStates"] = () => this.#reading.deviceStates();
  newestRecords: Store["newestRecords"] = (device, limit) => this.#reading.newestRecords(device, limit);
  recordsAfter: Store["recordsAfter"] = (device, after, limit) => this.#reading.recordsAfter(device, after, limit);
  rowsAfter: Store["rowsAfter"] = (device, after, limit) => this.#reading.rowsAfter(device, after, limit);
  series: Store["series"] = (device) => this.#reading.series(device);
  slots: Store["slots"] = (device, series, fromS, toS, limit) => this.#reading.slots(device, series, fromS, toS, limit);
  slotsBefore: Store["slotsBefore"] = (device, key, limit) => this.#reading.slotsBefore(device, key, limit);
  exchanges: Store["exchanges"] = (device) => this.#reading.exchanges(device);
  corrections: Store["corrections"] = (device, limit) => this.#reading.corrections(device, limit);
  evidence: Store["evidence"] = (device) => this.#reading.evidence(device);
  quarantined: Store["quarantined"] = (limit) => this.#reading.quarantined(limit);
  ledgerQueue: Store["ledgerQueue"] = () => this.#reading.ledgerQueue();

  async close(): Promise<void> {
    await this.#pool.end();
  }
}

function deviceOf(row: PostgresRow): StoredDevice {
  return {
    id: row.id as number,
    name: row.name as string,
    publicKey: row.public_key as Uint8Array,
    kid: row.kid as Uint8Array,
    currentKey: row.current_key as Uint8Array,
    softwareId: row.software as string,
    meters: JSON.parse(row.meters as string),
    requestDigest: row.request_digest as Uint8Array,
    enrolledMs: row.enrolled_ms as number,
  };
}
