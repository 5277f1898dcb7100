/**
 * Writes of one transaction, gathered, so that a batch costs few statements: what is added travels as one array a column. What is
 * gathered is written before the commit, and before any read that it could change.
 */
import { asArrays, type Connection, columnsOf, insertRows, run, unnest } from "./postgres-connection.ts";
import type { ChangedEpoch, CountedRow, Declared, NewSeat, Span } from "./store.ts";
import type { Partitions } from "./store-postgres-partitions.ts";
import { countRowsInto, type RowAt } from "./store-postgres-rows.ts";

type Row = readonly unknown[];

interface Quarantined {
  readonly name: string;
  readonly digest: Uint8Array;
  readonly record?: Row;
}

const columns = {
  records: columnsOf(
    "device int, epoch bigint, sequence bigint, predecessor bigint, digest bytea, previous bytea, settled smallint, received_ms bigint, bytes bytea",
  ),
  voids: columnsOf("device int, epoch bigint, first bigint, last bigint"),
  drops: columnsOf("device int, epoch bigint, first bigint, last bigint, by_epoch bigint, by_sequence bigint"),
  digest: columnsOf("digest bytea"),
  evidence: columnsOf(
    "device int, epoch bigint, sequence bigint, digest bytea, reason text, received_ms bigint, bytes bytea",
  ),
  quarantine: columnsOf("name text, digest bytea, epoch bigint, sequence bigint, received_ms bigint, bytes bytea"),
  quarantineKey: columnsOf("name text, digest bytea"),
  place: columnsOf("device int, epoch bigint, sequence bigint"),
  epochs: columnsOf(
    "device int, epoch bigint, settled_through bigint, ended bigint, through bigint, through_digest bytea, last_ms bigint, receipt bytea",
  ),
  spanKey: columnsOf("device int, epoch bigint, first bigint"),
  spans: columnsOf("device int, epoch bigint, first bigint, last bigint, digest bytea"),
};

export class PostgresWrites {
  readonly #connection: Connection;
  readonly #partitions: Partitions;
  readonly #nowMs: number | undefined;
  #records: Row[] = [];
  #voids: Row[] = [];
  #drops: Row[] = [];
  #queue: Row[] = [];
  #evidence: Row[] = [];
  #settles: Row[] = [];
  #rows: RowAt[] = [];
  #hasCounted = false;
  readonly #quarantine = new Map<string, Quarantined>();
  readonly #epochs = new Map<string, { device: number; epoch: number; state: ChangedEpoch }>();
  /** By place; undefined: there is none any more. */
  readonly #spans = new Map<string, { key: Row; span: Span | undefined }>();
  /** Devices of which something was written. */
  readonly changed = new Set<number>();

  constructor(connection: Connection, partitions: Partitions, nowMs: number | undefined) {
    this.#connection = connection;
    this.#partitions = partitions;
    this.#nowMs = nowMs;
  }

  addSeat(device: number, epoch: number, seat: NewSeat, { voided, dropped }: Declared): void {
    const { sequence, predecessor, digest, previous, settled, receivedMs, bytes } = seat;
    this.changed.add(device);
    this.#records.push([
      ...[device, epoch, sequence, predecessor, digest, previous, settled ? 1 : 0, receivedMs],
      bytes,
    ]);
    if (voided) this.#voids.push([device, epoch, voided.first, voided.last]);
    for (const { epoch: of, first, last } of dropped) this.#drops.push([device, of, first, last, epoch, sequence]);
    this.#queue.push([digest]);
  }

  settle(device: number, epoch: number, sequence: number): void {
    this.changed.add(device);
    this.#settles.push([device, epoch, sequence]);
  }

  countRows(device: number, epoch: number, sequence: number, rows: readonly CountedRow[]): void {
    this.changed.add(device);
    for (const row of rows) this.#rows.push({ device, epoch, sequence, row });
  }

  addEvidence(device: number, record: Row): void {
    this.changed.add(device);
    this.#evidence.push(record);
  }

  /** @param record undefined: it leaves the quarantine */
  quarantine(name: string, digest: Uint8Array, record?: Row): void {
    const key = `${name}/${Buffer.from(digest).toString("hex")}`;
    this.#quarantine.set(key, { name, digest, ...(record && { record }) });
  }

  saveEpoch(device: number, epoch: number, state: ChangedEpoch): void {
    this.changed.add(device);
    const key = `${device}:${epoch}`;
    const receipt = state.receipt ?? this.#epochs.get(key)?.state.receipt;
    this.#epochs.set(key, { device, epoch, state: { ...state, receipt } });
    for (const first of state.removedFirsts)
      this.#spans.set(`${key}:${first}`, { key: [device, epoch, first], span: undefined });
    for (const span of state.changedSpans)
      this.#spans.set(`${key}:${span.first}`, { key: [device, epoch, span.first], span });
  }

  /** Writes what is gathered. */
  async flush(): Promise<void> {
    const connection = this.#connection;
    const take = (rows: Row[]) => rows.splice(0);
    await insertRows(connection, "records", columns.records, take(this.#records));
    await insertRows(connection, "voids", columns.voids, take(this.#voids));
    await insertRows(connection, "drops", columns.drops, take(this.#drops), "ON CONFLICT DO NOTHING");
    await insertRows(connection, "ledger_queue", columns.digest, take(this.#queue));
    await insertRows(connection, "evidence", columns.evidence, take(this.#evidence), "ON CONFLICT DO NOTHING");
    await this.#with(
      columns.place,
      take(this.#settles),
      (u) =>
        `UPDATE records r SET settled = 1 FROM ${u} WHERE r.device = u.device AND r.epoch = u.epoch AND r.sequence = u.sequence`,
    );
    const rows = this.#rows.splice(0);
    await countRowsInto(connection, this.#partitions, rows, this.#nowMs, this.#hasCounted);
    this.#hasCounted ||= rows.length > 0;
    await this.#flushQuarantine();
    await this.#flushEpochs();
  }

  async #with(of: readonly { name: string; type: string }[], rows: readonly Row[], text: (u: string) => string) {
    if (rows.length > 0) await run(this.#connection, text(unnest(of)), asArrays(of, rows));
  }

  async #flushQuarantine(): Promise<void> {
    if (this.#quarantine.size === 0) return;
    const entries = [...this.#quarantine.values()];
    this.#quarantine.clear();
    await this.#with(
      columns.quarantineKey,
      entries.filter(({ record }) => record === undefined).map(({ name, digest }) => [name, digest]),
      (u) => `DELETE FROM quarantine q USING ${u} WHERE q.name = u.name AND q.digest = u.digest`,
    );
    const added = entries.flatMap(({ record }) => (record ? [record] : []));
    await insertRows(this.#connection, "quarantine", columns.quarantine, added, "ON CONFLICT DO NOTHING");
  }

  async #flushEpochs(): Promise<void> {
    const saved = [...this.#epochs.values()].map(({ device, epoch, state }): Row => {
      const { settledThrough, ended, whole, nowMs, receipt } = state;
      return [device, epoch, settledThrough, ended, whole?.last ?? 0, whole?.digest, nowMs, receipt];
    });
    this.#epochs.clear();
    await this.#with(
      columns.epochs,
      saved,
      (u) =>
        `UPDATE epochs e SET settled_through = u.settled_through, ended = u.ended, through = u.through,
           through_digest = u.through_digest, last_ms = greatest(e.last_ms, u.last_ms), receipt = coalesce(u.receipt, e.receipt)
         FROM ${u} WHERE e.device = u.device AND e.epoch = u.epoch`,
    );
    if (this.#spans.size === 0) return;
    const spans = [...this.#spans.values()];
    this.#spans.clear();
    await this.#with(
      columns.spanKey,
      spans.filter(({ span }) => span === undefined).map(({ key }) => key),
      (u) => `DELETE FROM spans s USING ${u} WHERE s.device = u.device AND s.epoch = u.epoch AND s.first = u.first`,
    );
    await insertRows(
      this.#connection,
      "spans",
      columns.spans,
      spans.flatMap(({ key, span }) => (span ? [[...key, span.last, span.digest]] : [])),
      "ON CONFLICT (device, epoch, first) DO UPDATE SET last = excluded.last, digest = excluded.digest",
    );
  }
}
