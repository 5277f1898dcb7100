/**
 * The embedded store: one SQLite file in the data folder. Write-ahead log, synchronous FULL and psow=0: what was committed
 * survives a power cut, even one that spoils the block that was being written (docs/decisions).
 */
import { chmodSync, closeSync, existsSync, openSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type SQLInputValue, type SQLOutputValue, type StatementSync } from "node:sqlite";
import { pathToFileURL } from "node:url";
import { NodeError } from "./node-error.ts";
import type {
  ChangedEpoch,
  CountedRow,
  DeviceSummary,
  Enrolment,
  NewSeat,
  QuarantinedRecord,
  Seat,
  SequenceRange,
  Span,
  Store,
  StoredDevice,
  StoredEpoch,
  StoredRecord,
  StoreTransaction,
} from "./store.ts";
import { migrations } from "./store-schema.ts";

const storeFileName = "node.db";
/** "ECPn": tells our file from another program's. */
const applicationId = 0x4543_506e;
const synchronousFull = 2;
const busyTimeoutMs = 10_000;
const cacheKiB = 64 * 1024;

type SqlRow = Record<string, SQLOutputValue>;

/** Makes the store of a new node in a data folder. Refuses to touch one that is there. */
export function createSqliteStore(data: string, nodeName: string): SqliteStore {
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

export class SqliteStore implements Store {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  readonly #transaction: StoreTransaction;

  constructor(path: string) {
    const url = pathToFileURL(path);
    url.searchParams.set("psow", "0");
    try {
      this.#database = new DatabaseSync(url, { timeout: busyTimeoutMs });
      this.#configure();
      this.#migrate(path);
    } catch (error) {
      throw asNodeError(error, path);
    }
    this.#transaction = this.#makeTransaction();
  }

  #configure(): void {
    this.#database.exec("PRAGMA journal_mode = WAL");
    this.#database.exec("PRAGMA synchronous = FULL");
    this.#database.exec(`PRAGMA cache_size = -${cacheKiB}`);
    // Checked, not believed: receipts promise what these settings keep.
    const journal = this.#database.prepare("PRAGMA journal_mode").get()?.journal_mode;
    const synchronous = this.#database.prepare("PRAGMA synchronous").get()?.synchronous;
    if (journal !== "wal" || synchronous !== synchronousFull)
      throw new Error(`SQLite did not take the settings: journal_mode ${journal}, synchronous ${synchronous}`);
  }

  #migrate(path: string): void {
    const id = this.#get("PRAGMA application_id")?.application_id;
    const isEmpty = this.#get("SELECT count(*) AS n FROM sqlite_schema")?.n === 0;
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
      for (const migration of migrations.slice(version)) this.#database.exec(migration);
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
    return this.#get("SELECT value FROM meta WHERE key = ?", key)?.value as string | undefined;
  }

  #setMeta(key: string, value: string): void {
    this.#run("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value);
  }

  get nodeName(): string {
    return this.#meta("name") ?? "node";
  }

  setNodeName(name: string): void {
    this.#setMeta("name", name);
  }

  async transaction<T>(work: (tx: StoreTransaction) => Promise<T>): Promise<T> {
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      const result = await work(this.#transaction);
      this.#database.exec("COMMIT"); // point of no return: from here a power cut loses nothing of it
      return result;
    } catch (error) {
      // A full disk makes SQLite roll back by itself.
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  foreignChanges(): number {
    return this.#get("PRAGMA data_version")?.data_version as number;
  }

  device(name: string): StoredDevice | undefined {
    const row = this.#get("SELECT * FROM devices WHERE name = ?", name);
    return row && deviceOf(row);
  }

  enrol(enrolment: Enrolment): boolean {
    const { name, publicKey, kid, share, softwareId, meters, request, requestDigest, enrolledMs, epoch } = enrolment;
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      const isNew = this.device(name) === undefined;
      const { id } = this.#get(
        `INSERT INTO devices (name, public_key, kid, share, software, meters, request, request_digest, enrolled_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (name) DO UPDATE SET share = excluded.share, software = excluded.software, meters = excluded.meters,
           request = excluded.request, request_digest = excluded.request_digest
         RETURNING id`,
        name,
        publicKey,
        kid,
        share,
        softwareId,
        JSON.stringify(meters),
        request,
        requestDigest,
        enrolledMs,
      ) as { id: number };
      this.#run(
        `INSERT INTO epochs (device, epoch, held, first_ms, last_ms) VALUES (?, ?, 0, ?, 0)
         ON CONFLICT (device, epoch) DO UPDATE SET held = 0`,
        id,
        epoch,
        enrolledMs,
      );
      this.#database.exec("COMMIT");
      return isNew;
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  digest(device: number, epoch: number, sequence: number): Uint8Array | undefined {
    return this.#seat(device, epoch, sequence)?.digest;
  }

  epochsToSettle(limit: number): { device: number; epoch: number }[] {
    return this.#all(
      "SELECT device, epoch FROM epochs WHERE held = 0 AND settled_through < through LIMIT ?",
      limit,
    ) as unknown as { device: number; epoch: number }[];
  }

  releasedQuarantine(limit: number): QuarantinedRecord[] {
    return this.#all(
      `SELECT q.name, q.digest, q.bytes FROM quarantine q JOIN devices d ON d.name = q.name
       ORDER BY q.name, q.epoch, q.sequence LIMIT ?`,
      limit,
    ) as unknown as QuarantinedRecord[];
  }

  quarantineCount(name: string): { ofName: number; total: number } {
    return this.#get(
      "SELECT (SELECT count(*) FROM quarantine WHERE name = ?) AS ofName, (SELECT count(*) FROM quarantine) AS total",
      name,
    ) as unknown as { ofName: number; total: number };
  }

  devices(): DeviceSummary[] {
    return this.#all("SELECT * FROM devices ORDER BY enrolled_ms, id").map((row) => {
      const device = deviceOf(row);
      const epochs = this.#all("SELECT epoch, last_ms FROM epochs WHERE device = ? ORDER BY last_ms DESC", device.id);
      const counts = this.#get(
        `SELECT (SELECT count(*) FROM records WHERE device = ?1) AS records,
                (SELECT count(*) FROM evidence WHERE device = ?1) AS evidence`,
        device.id,
      ) as { records: number; evidence: number };
      return {
        ...device,
        ...counts,
        epochs: epochs.map(({ epoch, last_ms }) => ({
          ...(this.#epoch(device.id, epoch as number) as StoredEpoch),
          lastReceivedMs: last_ms as number,
        })),
      };
    });
  }

  newestRecords(device: number, limit: number): StoredRecord[] {
    const records: StoredRecord[] = [];
    for (const { epoch, held } of this.#all(
      "SELECT epoch, held FROM epochs WHERE device = ? ORDER BY last_ms DESC, epoch",
      device,
    )) {
      const newest = this.#all(
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

  close(): void {
    this.#statements.clear();
    this.#database.close();
  }

  #epoch(device: number, epoch: number): StoredEpoch | undefined {
    const row = this.#get(
      "SELECT held, settled_through, through, through_digest FROM epochs WHERE device = ? AND epoch = ?",
      device,
      epoch,
    );
    if (row === undefined) return undefined;
    const whole = { first: 1, last: row.through as number, digest: row.through_digest as Uint8Array };
    const others = this.#all(
      "SELECT first, last, digest FROM spans WHERE device = ? AND epoch = ? ORDER BY first",
      device,
      epoch,
    ) as unknown as Span[];
    const evidence = this.#get("SELECT count(*) AS n FROM evidence WHERE device = ? AND epoch = ?", device, epoch);
    return {
      epoch,
      held: row.held === 1,
      settledThrough: row.settled_through as number,
      spans: whole.last > 0 ? [whole, ...others] : others,
      evidence: evidence?.n as number,
    };
  }

  #seat(device: number, epoch: number, sequence: number): Seat | undefined {
    const row = this.#get(
      `SELECT sequence, predecessor, digest, previous, settled FROM records
       WHERE device = ? AND epoch = ? AND sequence = ?`,
      device,
      epoch,
      sequence,
    );
    return row && seatOf(row);
  }

  #makeTransaction(): StoreTransaction {
    return {
      epoch: (device, epoch) => this.#epoch(device, epoch),
      epochCount: (device) => this.#count("SELECT count(*) AS n FROM epochs WHERE device = ?", device),
      addEpoch: (device, epoch, held, nowMs) =>
        this.#run(
          "INSERT INTO epochs (device, epoch, held, first_ms, last_ms) VALUES (?, ?, ?, ?, ?)",
          device,
          epoch,
          held ? 1 : 0,
          nowMs,
          nowMs,
        ),
      saveEpoch: (device, epoch, state) => this.#saveEpoch(device, epoch, state),
      seat: (device, epoch, sequence) => this.#seat(device, epoch, sequence),
      addSeat: (device, epoch, seat, voided) => this.#addSeat(device, epoch, seat, voided),
      unseat: (device, epoch, sequence, reason) => this.#unseat(device, epoch, sequence, reason),
      voidsFrom: (device, epoch, first) =>
        this.#all("SELECT last FROM voids WHERE device = ? AND epoch = ? AND first = ?", device, epoch, first).map(
          ({ last }) => (last as number) + 1,
        ),
      voids: (device, epoch) =>
        this.#all(
          "SELECT first, last FROM voids WHERE device = ? AND epoch = ? ORDER BY first",
          device,
          epoch,
        ) as unknown as SequenceRange[],
      seats: (device, epoch) =>
        this.#all(
          "SELECT sequence, digest FROM records WHERE device = ? AND epoch = ? ORDER BY sequence",
          device,
          epoch,
        ) as unknown as { sequence: number; digest: Uint8Array }[],
      unsettled: (device, epoch, after, through, limit) =>
        this.#all(
          `SELECT sequence, predecessor, digest, previous, settled, bytes FROM records
           WHERE device = ? AND epoch = ? AND sequence > ? AND sequence <= ? AND settled = 0 ORDER BY sequence LIMIT ?`,
          device,
          epoch,
          after,
          through,
          limit,
        ).map((row) => ({ ...seatOf(row), bytes: row.bytes as Uint8Array })),
      settle: (device, epoch, sequence) =>
        this.#run(
          "UPDATE records SET settled = 1 WHERE device = ? AND epoch = ? AND sequence = ?",
          device,
          epoch,
          sequence,
        ),
      countRow: (device, epoch, sequence, row) => this.#countRow(device, epoch, sequence, row),
      evidenceDigests: (device, epoch, sequence) =>
        this.#all(
          "SELECT digest FROM evidence WHERE device = ? AND epoch = ? AND sequence = ?",
          device,
          epoch,
          sequence,
        ).map((row) => row.digest as Uint8Array),
      evidenceSequences: (device, epoch, limit) =>
        this.#all(
          "SELECT sequence, reason FROM evidence WHERE device = ? AND epoch = ? ORDER BY id DESC LIMIT ?",
          device,
          epoch,
          limit,
        ).map((row) => [row.sequence as number, row.reason as string]),
      addEvidence: (device, epoch, { sequence, digest, bytes, reason, receivedMs }) =>
        this.#run(
          `INSERT OR IGNORE INTO evidence (device, epoch, sequence, digest, reason, received_ms, bytes)
           VALUES (?, ?, ?, ?, ?, ?, ?)`,
          device,
          epoch,
          sequence,
          digest,
          reason,
          receivedMs,
          bytes,
        ),
      evidenceCount: (device) => this.#count("SELECT count(*) AS n FROM evidence WHERE device = ?", device),
      lastReceipt: (device, epoch) => {
        const row = this.#get("SELECT receipt FROM epochs WHERE device = ? AND epoch = ?", device, epoch);
        return row?.receipt instanceof Uint8Array ? row.receipt : undefined;
      },
      addQuarantined: ({ name, digest, epoch, sequence, receivedMs, bytes }) =>
        this.#run(
          "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)",
          name,
          digest,
          epoch,
          sequence,
          receivedMs,
          bytes,
        ),
      removeQuarantined: (name, digest) =>
        this.#run("DELETE FROM quarantine WHERE name = ? AND digest = ?", name, digest),
    };
  }

  #saveEpoch(device: number, epoch: number, state: ChangedEpoch): void {
    const { settledThrough, whole, removedFirsts, changedSpans, receipt, nowMs } = state;
    this.#run(
      `UPDATE epochs SET settled_through = ?, through = ?, through_digest = ?, last_ms = max(last_ms, ?),
         receipt = coalesce(?, receipt) WHERE device = ? AND epoch = ?`,
      settledThrough,
      whole?.last ?? 0,
      whole?.digest ?? null,
      nowMs,
      receipt ?? null,
      device,
      epoch,
    );
    for (const first of removedFirsts)
      this.#run("DELETE FROM spans WHERE device = ? AND epoch = ? AND first = ?", device, epoch, first);
    for (const { first, last, digest } of changedSpans)
      this.#run("INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?, ?)", device, epoch, first, last, digest);
  }

  #addSeat(device: number, epoch: number, seat: NewSeat, voided: SequenceRange | undefined): void {
    const { sequence, predecessor, digest, previous, settled, receivedMs, bytes } = seat;
    this.#run(
      "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
      device,
      epoch,
      sequence,
      predecessor,
      digest,
      previous,
      settled ? 1 : 0,
      receivedMs,
      bytes,
    );
    if (voided) this.#run("INSERT INTO voids VALUES (?, ?, ?, ?)", device, epoch, voided.first, voided.last);
    this.#run("INSERT INTO ledger_queue (digest) VALUES (?)", digest);
  }

  #unseat(device: number, epoch: number, sequence: number, reason: string): void {
    this.#run(
      `INSERT OR IGNORE INTO evidence (device, epoch, sequence, digest, reason, received_ms, bytes)
       SELECT device, epoch, sequence, digest, ?, received_ms, bytes FROM records
       WHERE device = ? AND epoch = ? AND sequence = ?`,
      reason,
      device,
      epoch,
      sequence,
    );
    this.#run("DELETE FROM records WHERE device = ? AND epoch = ? AND sequence = ?", device, epoch, sequence);
    this.#run("DELETE FROM voids WHERE device = ? AND epoch = ? AND last = ?", device, epoch, sequence - 1);
  }

  #countRow(device: number, epoch: number, sequence: number, row: CountedRow): void {
    this.#run(
      `INSERT INTO rows (device, meter, generation, time_s, slot_s, status, booked, epoch, sequence, content)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (device, meter, generation, time_s) DO UPDATE SET slot_s = excluded.slot_s, status = excluded.status,
         booked = excluded.booked, epoch = excluded.epoch, sequence = excluded.sequence, content = excluded.content
       WHERE rows.content = '[]' AND excluded.content <> '[]'`,
      device,
      row.meter,
      row.generation,
      row.timeS,
      row.slotS,
      row.status,
      row.booked ? 1 : 0,
      epoch,
      sequence,
      JSON.stringify(row.values),
    );
  }

  #count(sql: string, ...parameters: (number | string)[]): number {
    return this.#get(sql, ...parameters)?.n as number;
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #get(sql: string, ...parameters: SQLInputValue[]): SqlRow | undefined {
    return this.#statement(sql).get(...parameters);
  }

  #all(sql: string, ...parameters: SQLInputValue[]): SqlRow[] {
    return this.#statement(sql).all(...parameters);
  }

  #run(sql: string, ...parameters: SQLInputValue[]): void {
    this.#statement(sql).run(...parameters);
  }
}

function deviceOf(row: SqlRow): StoredDevice {
  return {
    id: row.id as number,
    name: row.name as string,
    publicKey: row.public_key as Uint8Array,
    kid: row.kid as Uint8Array,
    softwareId: row.software as string,
    meters: JSON.parse(row.meters as string),
    requestDigest: row.request_digest as Uint8Array,
    enrolledMs: row.enrolled_ms as number,
  };
}

function seatOf(row: SqlRow): Seat {
  return {
    sequence: row.sequence as number,
    predecessor: row.predecessor as number,
    digest: row.digest as Uint8Array,
    previous: row.previous as Uint8Array,
    settled: row.settled === 1,
  };
}

/** SQLite's primary result codes (sqlite.org/rescode.html); extended ones keep them in their low byte. */
const resultCode = { busy: 5, readonly: 8, corrupt: 11, full: 13, cantOpen: 14, notADatabase: 26 } as const;

function resultCodeOf(error: unknown): number | undefined {
  return error instanceof Error && "errcode" in error && typeof error.errcode === "number"
    ? error.errcode & 0xff
    : undefined;
}

/** Whether a transaction failed for want of room or because another process wrote: the store is sound, and a later try may do. */
export function isPassingStoreError(error: unknown): boolean {
  const code = resultCodeOf(error);
  return code === resultCode.full || code === resultCode.busy;
}

function damaged(path: string, got: string): NodeError {
  return new NodeError("store-damaged", {
    expected: "the store of a full node",
    got,
    where: path,
    todo: "restore the data folder from a backup; devices keep what has no receipt and send it again",
  });
}

function asNodeError(error: unknown, path: string): unknown {
  const code = resultCodeOf(error);
  if (code === resultCode.corrupt || code === resultCode.notADatabase) return damaged(path, (error as Error).message);
  if (code === resultCode.cantOpen || code === resultCode.readonly)
    return new NodeError("data-not-writable", {
      expected: "a store that this user may read and write",
      got: (error as Error).message,
      where: path,
      todo: "run as the user that owns the data folder (ecp-node)",
    });
  return error;
}
