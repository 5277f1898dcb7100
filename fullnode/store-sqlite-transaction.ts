/** What the embedded store reads and writes inside a transaction. */
import type { SqlRow, SqlStatements } from "./sql-statements.ts";
import type {
  ChangedEpoch,
  CountedRow,
  NewSeat,
  Seat,
  SequenceRange,
  Span,
  StoredEpoch,
  StoreTransaction,
} from "./store.ts";

export class SqliteTransaction {
  readonly #sql: SqlStatements;

  constructor(sql: SqlStatements) {
    this.#sql = sql;
  }

  epoch(device: number, epoch: number): StoredEpoch | undefined {
    const row = this.#sql.get(
      "SELECT held, settled_through, through, through_digest FROM epochs WHERE device = ? AND epoch = ?",
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
      held: row.held === 1,
      settledThrough: row.settled_through as number,
      spans: whole.last > 0 ? [whole, ...others] : others,
      evidence: evidence?.n as number,
    };
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
  operations(): StoreTransaction {
    return {
      epoch: (device, epoch) => this.epoch(device, epoch),
      epochCount: (device) => this.#sql.count("SELECT count(*) AS n FROM epochs WHERE device = ?", device),
      addEpoch: (device, epoch, held, nowMs) =>
        this.#sql.run(
          "INSERT INTO epochs (device, epoch, held, first_ms, last_ms) VALUES (?, ?, ?, ?, ?)",
          device,
          epoch,
          held ? 1 : 0,
          nowMs,
          nowMs,
        ),
      saveEpoch: (device, epoch, state) => this.#saveEpoch(device, epoch, state),
      seat: (device, epoch, sequence) => this.seat(device, epoch, sequence),
      addSeat: (device, epoch, seat, voided) => this.#addSeat(device, epoch, seat, voided),
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
      countRow: (device, epoch, sequence, row) => this.#countRow(device, epoch, sequence, row),
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

  #saveEpoch(device: number, epoch: number, state: ChangedEpoch): void {
    const { settledThrough, whole, removedFirsts, changedSpans, receipt, nowMs } = state;
    this.#sql.run(
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
      this.#sql.run("DELETE FROM spans WHERE device = ? AND epoch = ? AND first = ?", device, epoch, first);
    for (const { first, last, digest } of changedSpans)
      this.#sql.run("INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?, ?)", device, epoch, first, last, digest);
  }

  #addSeat(device: number, epoch: number, seat: NewSeat, voided: SequenceRange | undefined): void {
    const { sequence, predecessor, digest, previous, settled, receivedMs, bytes } = seat;
    this.#sql.run(
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
    if (voided) this.#sql.run("INSERT INTO voids VALUES (?, ?, ?, ?)", device, epoch, voided.first, voided.last);
    this.#sql.run("INSERT INTO ledger_queue (digest) VALUES (?)", digest);
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
  }

  #countRow(device: number, epoch: number, sequence: number, row: CountedRow): void {
    this.#sql.run(
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
