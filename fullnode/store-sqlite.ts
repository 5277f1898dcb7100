/**
 * The embedded store: one SQLite file in the data folder. Write-ahead log, synchronous FULL and psow=0: what was committed
 * survives a power cut, even one that spoils the block that was being written (docs/decisions).
 */
import { chmodSync, closeSync, existsSync, openSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { pathToFileURL } from "node:url";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { NodeError } from "./node-error.ts";
import { type SqlRow, SqlStatements } from "./sql-statements.ts";
import type {
  BatchScope,
  DeviceState,
  DeviceSummary,
  Enrolment,
  EpochKey,
  QuarantinedRecord,
  RecordPlace,
  Store,
  StoredDevice,
  StoredEpoch,
  StoredRecord,
  StorePlace,
  StoreTransaction,
} from "./store.ts";
import { migrations } from "./store-schema.ts";
import { asNodeError, damaged, isPassingStoreError } from "./store-sqlite-failure.ts";
import { SqliteLorawan } from "./store-sqlite-lorawan.ts";
import { SqliteReading } from "./store-sqlite-reading.ts";
import { SqliteTransaction, seatOf } from "./store-sqlite-transaction.ts";

export const storeFileName = "node.db";
/** "ECPn": tells our file from another program's. */
const applicationId = 0x4543_506e;
const synchronousFull = 2;
const busyTimeoutMs = 10_000;
const cacheKiB = 64 * 1024;
/** Of 4 KiB: a page that several batches change is then written back once. */
const checkpointPages = 4_000;

/** Makes the store of a new node in a data folder. Refuses to touch one that is there. */
export function createSqliteStore(data: string, nodeName: string, timeZone = "UTC"): SqliteStore {
  const path = join(data, storeFileName);
  if (existsSync(path))
    throw new NodeError("data-exists", {
      expected: "a data folder without a store",
      got: `the store ${path}`,
      where: data,
      todo: "use another folder with --data; a store is never overwritten",
    });
  closeSync(openSync(path, "wx", 0o600)); // SQLite gives its own files the mode of this one
  chmodSync(path, 0o600);
  const store = new SqliteStore(path);
  store.setNodeName(nodeName);
  store.setTimeZone(timeZone);
  return store;
}

/** Opens the store of a data folder; a store of an older version is brought up to date. */
export function openSqliteStore(data: string): SqliteStore {
  const path = join(data, storeFileName);
  if (!existsSync(path))
    throw new NodeError("data-missing", {
      expected: "the data folder of a full node",
      got: `no store ${path}`,
      where: data,
      todo: `ecp-node init --data ${data} makes one; or give the right folder with --data`,
    });
  return new SqliteStore(path);
}

const noDevices: ReadonlySet<number> = new Set();

export class SqliteStore implements Store {
  readonly #database: DatabaseSync;
  readonly #sql: SqlStatements;
  readonly #inside: SqliteTransaction;
  readonly lorawan: SqliteLorawan;
  readonly #reading: SqliteReading;
  readonly #operations: Omit<StoreTransaction, "foreign">;
  #changesSeen: number;

  constructor(path: string) {
    const url = pathToFileURL(path);
    url.searchParams.set("psow", "0");
    try {
      this.#database = new DatabaseSync(url, { timeout: busyTimeoutMs });
      this.#sql = new SqlStatements(this.#database);
      this.#configure();
      this.#migrate(path);
    } catch (error) {
      throw asNodeError(error, path);
    }
    this.#inside = new SqliteTransaction(this.#sql);
    this.#operations = this.#inside.operations();
    this.#reading = new SqliteReading(this.#sql);
    this.lorawan = new SqliteLorawan(this.#database, this.#sql);
    this.#changesSeen = this.foreignChanges();
  }

  #configure(): void {
    this.#database.exec("PRAGMA journal_mode = WAL");
    this.#database.exec("PRAGMA synchronous = FULL");
    this.#database.exec(`PRAGMA cache_size = -${cacheKiB}`);
    this.#database.exec(`PRAGMA wal_autocheckpoint = ${checkpointPages}`);
    // Checked, not believed: receipts promise what these settings keep.
    const journal = this.#database.prepare("PRAGMA journal_mode").get()?.journal_mode;
    const synchronous = this.#database.prepare("PRAGMA synchronous").get()?.synchronous;
    if (journal !== "wal" || synchronous !== synchronousFull)
      throw new Error(`SQLite did not take the settings: journal_mode ${journal}, synchronous ${synchronous}`);
  }

  #migrate(path: string): void {
    const id = this.#sql.get("PRAGMA application_id")?.application_id;
    const isEmpty = this.#sql.get("SELECT count(*) AS n FROM sqlite_schema")?.n === 0;
    if (id !== applicationId && !isEmpty) throw damaged(path, "an SQLite file of another program");
    if (!isEmpty && this.#schemaVersion() === migrations.length) return;
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      this.#database.exec(`PRAGMA application_id = ${applicationId}`);
      this.#database.exec("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT");
      const version = this.#schemaVersion();
      if (version > migrations.length)
        throw new NodeError("store-newer", {
          expected: `a store of version ${migrations.length} or older`,
          got: `version ${version}`,
          where: path,
          todo: "use the ecp-node that wrote it, or a newer one",
        });
      for (const migration of migrations.slice(version)) {
        this.#database.exec(typeof migration === "string" ? migration : migration.sql);
        if (typeof migration !== "string") migration.move(this.#database);
      }
      this.#setMeta("schema", `${migrations.length}`);
      this.#database.exec("COMMIT");
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  #schemaVersion(): number {
    return Number(this.#meta("schema") ?? 0);
  }

  #meta(key: string): string | undefined {
    return this.#sql.get("SELECT value FROM meta WHERE key = ?", key)?.value as string | undefined;
  }

  #setMeta(key: string, value: string): void {
    this.#sql.run("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value);
  }

  get nodeName(): string {
    return this.#meta("name") ?? "node";
  }

  setNodeName(name: string): void {
    this.#setMeta("name", name);
  }

  get timeZone(): string {
    return this.#meta("time-zone") ?? "UTC";
  }

  setTimeZone(name: string): void {
    this.#setMeta("time-zone", name);
  }

  async transaction<T>(scope: BatchScope, work: (tx: StoreTransaction) => Promise<T>): Promise<T> {
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      // Others may have written since the last one; nobody can while this one runs.
      const changes = this.foreignChanges();
      const foreign = changes === this.#changesSeen ? noDevices : "all";
      this.#changesSeen = changes;
      if (foreign === "all") this.#inside.rows.forget();
      const result = await work({ ...this.#operations, foreign });
      this.#inside.flush(scope.nowMs);
      this.#database.exec("COMMIT"); // point of no return: from here a power cut loses nothing of it
      return result;
    } catch (error) {
      this.#inside.forget();
      // A full disk makes SQLite roll back by itself.
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  foreignChanges(): number {
    return this.#sql.get("PRAGMA data_version")?.data_version as number;
  }

  device(name: string): StoredDevice | undefined {
    const row = this.#sql.get("SELECT * FROM devices WHERE name = ?", name);
    return row && deviceOf(row);
  }

  deviceNames(limit: number): string[] {
    return this.#sql.all("SELECT name FROM devices ORDER BY id DESC LIMIT ?", limit).map(({ name }) => name as string);
  }

  enrol(enrolment: Enrolment): boolean {
    const { name, publicKey, kid, currentKey, share, softwareId, meters, request, requestDigest, enrolledMs } =
      enrolment;
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      const before = this.device(name);
      const isNew = before === undefined;
      const { id } = this.#sql.get(
        `INSERT INTO devices
           (name, public_key, kid, current_key, share, software, meters, request, request_digest, enrolled_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (name) DO UPDATE SET share = excluded.share, software = excluded.software, meters = excluded.meters,
           request = excluded.request, request_digest = excluded.request_digest
         RETURNING id`,
        name,
        publicKey,
        kid,
        currentKey,
        share,
        softwareId,
        JSON.stringify(meters),
        request,
        requestDigest,
        enrolledMs,
      ) as { id: number };
      // A request of before a rotation must not bring the old key back.
      if (before && enrolment.earlier.some((one) => equalBytes(one.publicKey, before.currentKey)))
        this.#sql.run("UPDATE devices SET current_key = ? WHERE id = ?", currentKey, id);
      this.#agreeToEpochs(id, enrolment);
      this.#database.exec("COMMIT");
      return isNew;
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  /** The epoch of an enrolment and those before it are agreed to; an epoch that somebody else has begun gives way. */
  #agreeToEpochs(device: number, { epoch, currentKey, earlier, enrolledMs }: Enrolment): void {
    const agreed = { held: false, decision: "accepted" } as const;
    for (const one of [...earlier, { epoch, publicKey: currentKey }]) {
      const known = this.#inside.epoch(device, one.epoch);
      if (known === undefined)
        this.#sql.run(
          "INSERT INTO epochs (device, epoch, held, first_ms, last_ms) VALUES (?, ?, 0, ?, 0)",
          device,
          one.epoch,
          enrolledMs,
        );
      else if (!equalBytes(known.publicKey, one.publicKey)) {
        if (!known.held || known.decision !== "none") continue;
        this.#inside.evictEpoch(device, one.epoch, "other-key");
      } else if (one.epoch !== epoch && known.decision !== "none") continue;
      this.#inside.updateEpoch(device, one.epoch, { ...agreed, publicKey: one.publicKey });
    }
  }

  epochKeys(device: number): EpochKey[] {
    return this.#inside.epochKeys(device);
  }

  enrolmentRequest(device: number): Uint8Array | undefined {
    return this.#sql.get("SELECT request FROM devices WHERE id = ?", device)?.request as Uint8Array | undefined;
  }

  recordBytes(device: number, { epoch, sequence }: RecordPlace): Uint8Array | undefined {
    const row = this.#sql.get(
      "SELECT bytes FROM records WHERE device = ? AND epoch = ? AND sequence = ?",
      device,
      epoch,
      sequence,
    );
    return row?.bytes as Uint8Array | undefined;
  }

  digests(places: readonly StorePlace[]): (Uint8Array | undefined)[] {
    return places.map(({ device, epoch, sequence }) => this.#inside.seat(device, epoch, sequence)?.digest);
  }

  epochsToSettle(limit: number): { device: number; epoch: number }[] {
    return this.#sql.all(
      "SELECT device, epoch FROM epochs WHERE held = 0 AND settled_through < through LIMIT ?",
      limit,
    ) as unknown as { device: number; epoch: number }[];
  }

  releasedQuarantine(limit: number): QuarantinedRecord[] {
    return this.#sql.all(
      `SELECT q.name, q.digest, q.bytes FROM quarantine q JOIN devices d ON d.name = q.name
       ORDER BY q.name, q.epoch, q.sequence LIMIT ?`,
      limit,
    ) as unknown as QuarantinedRecord[];
  }

  quarantineCount(name: string): { ofName: number; total: number } {
    return this.#sql.get(
      "SELECT (SELECT count(*) FROM quarantine WHERE name = ?) AS ofName, (SELECT count(*) FROM quarantine) AS total",
      name,
    ) as unknown as { ofName: number; total: number };
  }

  devices(): DeviceSummary[] {
    return this.#sql.all("SELECT * FROM devices ORDER BY enrolled_ms, id").map((row) => {
      const device = deviceOf(row);
      const epochs = this.#sql.all(
        `SELECT epoch, last_ms, count(r.sequence) AS records, coalesce(sum(r.settled), 0) AS settled
         FROM epochs e LEFT JOIN records r USING (device, epoch) WHERE device = ? GROUP BY epoch ORDER BY last_ms DESC`,
        device.id,
      );
      const counts = this.#sql.get(
        `SELECT (SELECT count(*) FROM records WHERE device = ?1) AS records,
                (SELECT count(*) FROM evidence WHERE device = ?1) AS evidence`,
        device.id,
      ) as { records: number; evidence: number };
      return {
        ...device,
        ...counts,
        epochs: epochs.map(({ epoch, last_ms, records, settled }) => ({
          ...(this.#inside.epoch(device.id, epoch as number) as StoredEpoch),
          lastReceivedMs: last_ms as number,
          records: records as number,
          settled: settled as number,
        })),
      };
    });
  }

  deviceStates(): DeviceState[] {
    const rows = this.#sql.all(
      `SELECT name, enrolled_ms AS enrolledMs,
         (SELECT coalesce(max(last_ms), 0) FROM epochs WHERE device = d.id) AS lastReceivedMs,
         (SELECT count(*) FROM epochs WHERE device = d.id AND held = 1 AND decision = 'none') AS heldEpochs,
         (SELECT count(*) FROM evidence WHERE device = d.id) AS evidence,
         (SELECT coalesce(max(received_ms), 0) FROM evidence WHERE device = d.id) AS evidenceMs,
         EXISTS (SELECT 1 FROM spans s JOIN epochs e USING (device, epoch) WHERE s.device = d.id AND e.held = 0) AS hasGap
       FROM devices d ORDER BY enrolled_ms, id`,
    );
    return rows.map(({ hasGap, ...row }) => ({ ...row, hasGap: hasGap === 1 }) as DeviceState);
  }

  newestRecords(device: number, limit: number): StoredRecord[] {
    const records: StoredRecord[] = [];
    for (const { epoch, held } of this.#sql.all(
      "SELECT epoch, held FROM epochs WHERE device = ? ORDER BY last_ms DESC, epoch",
      device,
    )) {
      const newest = this.#sql.all(
        "SELECT * FROM records WHERE device = ? AND epoch = ? ORDER BY sequence DESC LIMIT ?",
        device,
        epoch as number,
        limit - records.length,
      );
      for (const row of newest)
        records.push({
          ...seatOf(row),
          epoch: epoch as number,
          held: held === 1,
          bytes: row.bytes as Uint8Array,
          receivedMs: row.received_ms as number,
        });
      if (records.length >= limit) break;
    }
    return records;
  }

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

  isPassing(error: unknown): boolean {
    return isPassingStoreError(error);
  }

  close(): void {
    this.#sql.clear();
    this.#database.close();
  }
}

function deviceOf(row: SqlRow): StoredDevice {
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
