/** What the embedded store reads and writes inside a transaction. */
import type { SqlRow, SqlStatements } from "./sql-statements.ts";
import type {
  ChangedEpoch,
  Declared,
  DeclaredDrop,
  EpochDecision,
  EpochKey,
  NewEpoch,
  NewSeat,
  Seat,
  SequenceRange,
  Span,
  StoredEpoch,
  StoreTransaction,
} from "./store.ts";
import { SqliteRows } from "./store-sqlite-rows.ts";
import { SqliteSeats } from "./store-sqlite-seats.ts";

/** What neither reads nor changes records, so that those gathered may wait. */
const leavesRecordsAlone: ReadonlySet<string> = new Set<keyof StoreTransaction>([
  ...(["addSeat", "countRows", "saveEpoch", "lastReceipt", "epochCount", "deviceName", "currentKey"] as const),
  ...(["setCurrentKey", "addQuarantined", "removeQuarantined"] as const),
]);

export class SqliteTransaction {
  readonly #sql: SqlStatements;
  readonly rows: SqliteRows;
  readonly #seats: SqliteSeats;

  constructor(sql: SqlStatements) {
    this.#sql = sql;
    this.rows = new SqliteRows(sql);
    this.#seats = new SqliteSeats(sql);
  }

  epoch(device: number, epoch: number): StoredEpoch | undefined {
    const row = this.#sql.get(
      `SELECT public_key, held, decision, parent_epoch, parent_sequence, ended, settled_through, through, through_digest
       FROM epochs WHERE device = ? AND epoch = ?`,
      device,
      epoch,
    );
    if (row === undefined) return undefined;
    const whole = { first: 1, last: row.through as number, digest: row.through_digest as Uint8Array };
    const others = this.#sql.all(
      "SELECT first, last, digest FROM spans WHERE device = ? AND epoch = ? ORDER BY first",
      device,
      epoch,
    ) as unknown as Span[];
    const evidence = this.#sql.get("SELECT count(*) AS n FROM evidence WHERE device = ? AND epoch = ?", device, epoch);
    return {
      epoch,
      publicKey: row.public_key as Uint8Array,
      held: row.held === 1,
      decision: row.decision as EpochDecision,
      ...(row.parent_epoch !== null && {
        parent: { epoch: row.parent_epoch as number, sequence: row.parent_sequence as number },
      }),
      ...(row.ended !== null && { ended: row.ended as number }),
      ...this.#drops(device, epoch),
      settledThrough: row.settled_through as number,
      spans: whole.last > 0 ? [whole, ...others] : others,
      evidence: evidence?.n as number,
    };
  }

  epochKeys(device: number): EpochKey[] {
    return this.#sql
      .all(
        "SELECT epoch, public_key, held, decision, parent_epoch, parent_sequence FROM epochs WHERE device = ?",
        device,
      )
      .map((row) => ({
        epoch: row.epoch as number,
        publicKey: row.public_key as Uint8Array,
        held: row.held === 1,
        decision: row.decision as EpochDecision,
        ...(row.parent_epoch !== null && {
          parent: { epoch: row.parent_epoch as number, sequence: row.parent_sequence as number },
        }),
      }));
  }

  seat(device: number, epoch: number, sequence: number): Seat | undefined {
    const row = this.#sql.get(
      `SELECT sequence, predecessor, digest, previous, settled FROM records
       WHERE device = ? AND epoch = ? AND sequence = ?`,
      device,
      epoch,
      sequence,
    );
    return row && seatOf(row);
  }

  /** What may be done inside a transaction. */
  operations(): Omit<StoreTransaction, "foreign"> {
    const operations = this.#direct();
    const entries = Object.entries(operations).map(([name, operation]) => [
      name,
      leavesRecordsAlone.has(name)
        ? operation
        : (...parameters: unknown[]) => {
            this.#seats.flush();
            return (operation as (...parameters: unknown[]) => unknown)(...parameters);
          },
    ]);
    return Object.fromEntries(entries) as typeof operations;
  }

  #direct(): Omit<StoreTransaction, "foreign"> {
    return {
      epoch: (device, epoch) => this.epoch(device, epoch),
      epochCount: (device) => this.#sql.count("SELECT count(*) AS n FROM epochs WHERE device = ?", device),
      epochKeys: (device) => this.epochKeys(device),
      addEpoch: (device, epoch, state, nowMs) => {
        const add = "INSERT INTO epochs (device, epoch, held, first_ms, last_ms) VALUES (?, ?, 1, ?, ?)";
        this.#sql.run(add, device, epoch, nowMs, nowMs);
        this.updateEpoch(device, epoch, state);
      },
      updateEpoch: (device, epoch, state) => this.updateEpoch(device, epoch, state),
      evictEpoch: (device, epoch, reason) => this.evictEpoch(device, epoch, reason),
      deviceName: (device) => this.#sql.get("SELECT name FROM devices WHERE id = ?", device)?.name as string,
      currentKey: (device) =>
        this.#sql.get("SELECT current_key FROM devices WHERE id = ?", device)?.current_key as Uint8Array,
      setCurrentKey: (device, publicKey) =>
        this.#sql.run("UPDATE devices SET current_key = ? WHERE id = ?", publicKey, device),
      saveEpoch: (device, epoch, state) => this.#saveEpoch(device, epoch, state),
      seat: (device, epoch, sequence) => this.seat(device, epoch, sequence),
      seatBelow: (device, epoch, sequence) => {
        const row = this.#sql.get(
          `SELECT sequence, predecessor, digest, previous, settled FROM records
           WHERE device = ? AND epoch = ? AND sequence < ? ORDER BY sequence DESC LIMIT 1`,
          device,
          epoch,
          sequence,
        );
        return row && seatOf(row);
      },
      addSeat: (device, epoch, seat, declared) => this.#addSeat(device, epoch, seat, declared),
      drops: (device, epoch) => this.#drops(device, epoch),
      unseat: (device, epoch, sequence, reason) => this.#unseat(device, epoch, sequence, reason),
      voidsFrom: (device, epoch, first) =>
        this.#sql
          .all("SELECT last FROM voids WHERE device = ? AND epoch = ? AND first = ?", device, epoch, first)
          .map(({ last }) => (last as number) + 1),
      voids: (device, epoch) =>
        this.#sql.all(
          "SELECT first, last FROM voids WHERE device = ? AND epoch = ? ORDER BY first",
          device,
          epoch,
        ) as unknown as SequenceRange[],
      seats: (device, epoch) =>
        this.#sql.all(
          "SELECT sequence, digest FROM records WHERE device = ? AND epoch = ? ORDER BY sequence",
          device,
          epoch,
        ) as unknown as { sequence: number; digest: Uint8Array }[],
      unsettled: (device, epoch, after, through, limit) =>
        this.#sql
          .all(
            `SELECT sequence, predecessor, digest, previous, settled, bytes FROM records
           WHERE device = ? AND epoch = ? AND sequence > ? AND sequence <= ? AND settled = 0 ORDER BY sequence LIMIT ?`,
            device,
            epoch,
            after,
            through,
            limit,
          )
          .map((row) => ({ ...seatOf(row), bytes: row.bytes as Uint8Array })),
      settle: (device, epoch, sequence) =>
        this.#sql.run(
          "UPDATE records SET settled = 1 WHERE device = ? AND epoch = ? AND sequence = ?",
          device,
          epoch,
          sequence,
        ),
      countRows: (device, epoch, sequence, rows) => this.rows.count(device, epoch, sequence, rows),
      addExchange: (device, { meter, generation, timeS, epoch, sequence, installation }) => {
        this.#sql.run(
          "INSERT OR IGNORE INTO exchanges VALUES (?, ?, ?, ?, ?, ?, ?)",
          ...[device, meter, generation, timeS, epoch, sequence, installation],
        );
      },
      evidenceDigests: (device, epoch, sequence) =>
        this.#sql
          .all("SELECT digest FROM evidence WHERE device = ? AND epoch = ? AND sequence = ?", device, epoch, sequence)
          .map((row) => row.digest as Uint8Array),
      evidenceSequences: (device, epoch, limit) =>
        this.#sql
          .all(
            "SELECT sequence, reason FROM evidence WHERE device = ? AND epoch = ? ORDER BY id DESC LIMIT ?",
            device,
            epoch,
            limit,
          )
          .map((row) => [row.sequence as number, row.reason as string]),
      addEvidence: (device, epoch, { sequence, digest, bytes, reason, receivedMs }) =>
        this.#sql.run(
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
      evidenceCount: (device) => this.#sql.count("SELECT count(*) AS n FROM evidence WHERE device = ?", device),
      lastReceipt: (device, epoch) => {
        const row = this.#sql.get("SELECT receipt FROM epochs WHERE device = ? AND epoch = ?", device, epoch);
        return row?.receipt instanceof Uint8Array ? row.receipt : undefined;
      },
      addQuarantined: ({ name, digest, epoch, sequence, receivedMs, bytes }) =>
        this.#sql.run(
          "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)",
          name,
          digest,
          epoch,
          sequence,
          receivedMs,
          bytes,
        ),
      removeQuarantined: (name, digest) =>
        this.#sql.run("DELETE FROM quarantine WHERE name = ? AND digest = ?", name, digest),
    };
  }

  updateEpoch(device: number, epoch: number, state: Partial<NewEpoch>): void {
    const { publicKey, held, decision, parent } = state;
    this.#sql.run(
      `UPDATE epochs SET public_key = coalesce(?, public_key), held = coalesce(?, held), decision = coalesce(?, decision),
         parent_epoch = coalesce(?, parent_epoch), parent_sequence = coalesce(?, parent_sequence)
       WHERE device = ? AND epoch = ?`,
      publicKey ?? null,
      held === undefined ? null : held ? 1 : 0,
      decision ?? null,
      parent?.epoch ?? null,
      parent?.sequence ?? null,
      device,
      epoch,
    );
  }

  evictEpoch(device: number, epoch: number, reason: string): void {
    this.#sql.run(
      `INSERT OR IGNORE INTO evidence (device, epoch, sequence, digest, reason, received_ms, bytes)
       SELECT device, epoch, sequence, digest, ?, received_ms, bytes FROM records WHERE device = ? AND epoch = ?`,
      reason,
      device,
      epoch,
    );
    for (const table of ["records", "spans", "voids"])
      this.#sql.run(`DELETE FROM ${table} WHERE device = ? AND epoch = ?`, device, epoch);
    this.#sql.run("DELETE FROM drops WHERE device = ? AND by_epoch = ?", device, epoch);
    this.#sql.run(
      `UPDATE epochs SET through = 0, through_digest = NULL, settled_through = 0, receipt = NULL, ended = NULL
       WHERE device = ? AND epoch = ?`,
      device,
      epoch,
    );
  }

  #drops(device: number, epoch: number): { drops: DeclaredDrop[]; gone: number } {
    const drops = this.#sql.all(
      `SELECT d.last, d.by_sequence AS sequence FROM drops d
       JOIN records r ON r.device = d.device AND r.epoch = d.by_epoch AND r.sequence = d.by_sequence
       WHERE d.device = ? AND d.epoch = ? AND d.by_epoch = d.epoch AND r.settled = 0`,
      device,
      epoch,
    ) as unknown as DeclaredDrop[];
    const gone = this.#sql.get(
      `SELECT max(d.last) AS last FROM drops d
       JOIN records r ON r.device = d.device AND r.epoch = d.by_epoch AND r.sequence = d.by_sequence
       WHERE d.device = ? AND d.epoch = ? AND r.settled = 1`,
      device,
      epoch,
    );
    return { drops, gone: (gone?.last as number | null) ?? 0 };
  }

  #saveEpoch(device: number, epoch: number, state: ChangedEpoch): void {
    const { settledThrough, ended, whole, removedFirsts, changedSpans, receipt, nowMs } = state;
    this.#sql.run(
      `UPDATE epochs SET settled_through = ?, ended = ?, through = ?, through_digest = ?, last_ms = max(last_ms, ?),
         receipt = coalesce(?, receipt) WHERE device = ? AND epoch = ?`,
      settledThrough,
      ended ?? null,
      whole?.last ?? 0,
      whole?.digest ?? null,
      nowMs,
      receipt ?? null,
      device,
      epoch,
    );
    for (const first of removedFirsts)
      this.#sql.run("DELETE FROM spans WHERE device = ? AND epoch = ? AND first = ?", device, epoch, first);
    for (const { first, last, digest } of changedSpans)
      this.#sql.run("INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?, ?)", device, epoch, first, last, digest);
  }

  #addSeat(device: number, epoch: number, seat: NewSeat, { voided, dropped }: Declared): void {
    const { sequence } = seat;
    this.#seats.add(device, epoch, seat);
    if (voided) this.#sql.run("INSERT INTO voids VALUES (?, ?, ?, ?)", device, epoch, voided.first, voided.last);
    for (const { epoch: of, first, last } of dropped)
      this.#sql.run("INSERT OR IGNORE INTO drops VALUES (?, ?, ?, ?, ?, ?)", device, of, first, last, epoch, sequence);
  }

  /** Before a transaction is committed: writes what was gathered. */
  flush(nowMs: number | undefined): void {
    this.#seats.flush();
    this.rows.flush(nowMs);
  }

  /** Forgets what was gathered in a transaction that has come to nothing. */
  forget(): void {
    this.#seats.forget();
    this.rows.forget();
  }

  #unseat(device: number, epoch: number, sequence: number, reason: string): void {
    this.#sql.run(
      `INSERT OR IGNORE INTO evidence (device, epoch, sequence, digest, reason, received_ms, bytes)
       SELECT device, epoch, sequence, digest, ?, received_ms, bytes FROM records
       WHERE device = ? AND epoch = ? AND sequence = ?`,
      reason,
      device,
      epoch,
      sequence,
    );
    this.#sql.run("DELETE FROM records WHERE device = ? AND epoch = ? AND sequence = ?", device, epoch, sequence);
    this.#sql.run("DELETE FROM voids WHERE device = ? AND epoch = ? AND last = ?", device, epoch, sequence - 1);
    this.#sql.run("DELETE FROM drops WHERE device = ? AND by_epoch = ? AND by_sequence = ?", device, epoch, sequence);
  }
}

export function seatOf(row: SqlRow): Seat {
  return {
    sequence: row.sequence as number,
    predecessor: row.predecessor as number,
    digest: row.digest as Uint8Array,
    previous: row.previous as Uint8Array,
    settled: row.settled === 1,
  };
}
