/**
 * What the store on PostgreSQL reads and writes inside a transaction. Answers that a batch of records needs are read ahead for all of its
 * places with the first question of their kind, and kept in step with what the transaction writes.
 */
import { strict as assert } from "node:assert";
import { type Connection, run } from "./postgres-connection.ts";
import type { BatchScope, NewEpoch, Seat, SequenceRange, StoredEpoch, StoreTransaction } from "./store.ts";
import type { Partitions } from "./store-postgres-partitions.ts";
import {
  type DeviceEpoch,
  epochKey,
  placeKey,
  readDrops,
  readEpochKeys,
  readEpochs,
  readSeats,
  readVoids,
  seatColumns,
  seatOf,
} from "./store-postgres-reads.ts";
import { PostgresWrites } from "./store-postgres-writes.ts";

/** More voids than this in one batch's epochs are asked for one by one. */
const voidsAheadMax = 10_000;

export class PostgresTransaction {
  readonly #connection: Connection;
  readonly #scope: BatchScope;
  readonly #devices: ReadonlySet<number>;
  readonly #writes: PostgresWrites;
  /** Undefined where nothing is read ahead yet. */
  #epochs: Map<string, { epoch: StoredEpoch; receipt: Uint8Array | undefined }> | undefined;
  /** By place; undefined: nothing stands there. */
  readonly #seats = new Map<string, Seat | undefined>();
  #seatsAhead = false;
  #voids: Map<string, SequenceRange[]> | undefined;
  #concernsEveryone = false;

  constructor(connection: Connection, scope: BatchScope, partitions: Partitions) {
    this.#connection = connection;
    this.#scope = scope;
    this.#devices = new Set(scope.devices);
    this.#writes = new PostgresWrites(connection, partitions, scope.nowMs);
  }

  /** Writes the rest. Returns the devices that were changed, and whether all nodes must look anew at what they remember of devices. */
  async finish(): Promise<{ changed: number[]; concernsEveryone: boolean }> {
    await this.#writes.flush();
    return { changed: [...this.#writes.changed], concernsEveryone: this.#concernsEveryone };
  }

  operations(): Omit<StoreTransaction, "foreign"> {
    const writes = this.#writes;
    return {
      epoch: (device, epoch) => this.epoch(device, epoch),
      epochCount: (device) => this.#count("SELECT count(*) AS n FROM epochs WHERE device = $1", [device]),
      epochKeys: async (device) => {
        await writes.flush();
        return await readEpochKeys(this.#connection, device);
      },
      addEpoch: async (device, epoch, state, nowMs) => {
        await this.#write(
          device,
          "INSERT INTO epochs (device, epoch, held, first_ms, last_ms) VALUES ($1, $2, 1, $3, $3)",
          [device, epoch, nowMs],
        );
        await this.updateEpoch(device, epoch, state);
      },
      updateEpoch: (device, epoch, state) => this.updateEpoch(device, epoch, state),
      evictEpoch: (device, epoch, reason) => this.evictEpoch(device, epoch, reason),
      deviceName: async (device) => {
        const [row] = await run(this.#connection, "SELECT name FROM devices WHERE id = $1", [device]);
        return row?.name as string;
      },
      currentKey: async (device) => {
        const [row] = await run(this.#connection, "SELECT current_key FROM devices WHERE id = $1", [device]);
        return row?.current_key as Uint8Array;
      },
      setCurrentKey: async (device, publicKey) => {
        this.#concernsEveryone = true;
        await this.#write(device, "UPDATE devices SET current_key = $2 WHERE id = $1", [device, publicKey]);
      },
      saveEpoch: (device, epoch, state) => {
        this.#assertInScope(device);
        this.#epochs?.delete(epochKey({ device, epoch }));
        writes.saveEpoch(device, epoch, state);
      },
      seat: (device, epoch, sequence) => this.#seat(device, epoch, sequence),
      seatBelow: async (device, epoch, sequence) => {
        const [row] = await this.#read(
          `SELECT ${seatColumns} FROM records WHERE device = $1 AND epoch = $2 AND sequence < $3
           ORDER BY sequence DESC LIMIT 1`,
          [device, epoch, sequence],
        );
        return row && seatOf(row);
      },
      addSeat: (device, epoch, seat, declared) => {
        this.#assertInScope(device);
        const { sequence, predecessor, digest, previous, settled } = seat;
        this.#seats.set(placeKey({ device, epoch, sequence }), { sequence, predecessor, digest, previous, settled });
        this.#epochs?.delete(epochKey({ device, epoch }));
        if (declared.voided) this.#voids = undefined;
        writes.addSeat(device, epoch, seat, declared);
      },
      drops: async (device, epoch) => {
        await writes.flush();
        const found = await readDrops(this.#connection, [{ device, epoch }]);
        return found.get(epochKey({ device, epoch })) ?? { drops: [], gone: 0 };
      },
      unseat: (device, epoch, sequence, reason) => this.#unseat(device, epoch, sequence, reason),
      voidsFrom: async (device, epoch, first) =>
        (await this.#voidsOf(device, epoch)).filter((one) => one.first === first).map(({ last }) => last + 1),
      voids: (device, epoch) => this.#voidsOf(device, epoch),
      seats: async (device, epoch) =>
        (await this.#read("SELECT sequence, digest FROM records WHERE device = $1 AND epoch = $2 ORDER BY sequence", [
          device,
          epoch,
        ])) as unknown as { sequence: number; digest: Uint8Array }[],
      unsettled: async (device, epoch, after, through, limit) => {
        const rows = await this.#read(
          `SELECT ${seatColumns}, bytes FROM records
           WHERE device = $1 AND epoch = $2 AND sequence > $3 AND sequence <= $4 AND settled = 0 ORDER BY sequence LIMIT $5`,
          [device, epoch, after, through, limit],
        );
        return rows.map((row) => {
          const seat = seatOf(row);
          this.#seats.set(placeKey({ device, epoch, sequence: seat.sequence }), seat);
          return { ...seat, bytes: row.bytes as Uint8Array };
        });
      },
      settle: (device, epoch, sequence) => {
        this.#assertInScope(device);
        const key = placeKey({ device, epoch, sequence });
        const seat = this.#seats.get(key);
        if (seat) this.#seats.set(key, { ...seat, settled: true });
        this.#epochs?.delete(epochKey({ device, epoch })); // its drops count from now on
        writes.settle(device, epoch, sequence);
      },
      countRows: (device, epoch, sequence, rows) => {
        this.#assertInScope(device);
        writes.countRows(device, epoch, sequence, rows);
      },
      addExchange: (device, { meter, generation, timeS, epoch, sequence, installation }) =>
        this.#write(device, "INSERT INTO exchanges VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING", [
          ...[device, meter, generation, timeS, epoch, sequence, installation],
        ]),
      evidenceDigests: async (device, epoch, sequence) => {
        const rows = await this.#read(
          "SELECT digest FROM evidence WHERE device = $1 AND epoch = $2 AND sequence = $3 ORDER BY id",
          [device, epoch, sequence],
        );
        return rows.map(({ digest }) => digest as Uint8Array);
      },
      evidenceSequences: async (device, epoch, limit) => {
        const rows = await this.#read(
          "SELECT sequence, reason FROM evidence WHERE device = $1 AND epoch = $2 ORDER BY id DESC LIMIT $3",
          [device, epoch, limit],
        );
        return rows.map(({ sequence, reason }) => [sequence as number, reason as string]);
      },
      addEvidence: (device, epoch, { sequence, digest, bytes, reason, receivedMs }) => {
        this.#assertInScope(device);
        this.#epochs?.delete(epochKey({ device, epoch }));
        writes.addEvidence(device, [device, epoch, sequence, digest, reason, receivedMs, bytes]);
      },
      evidenceCount: (device) => this.#count("SELECT count(*) AS n FROM evidence WHERE device = $1", [device]),
      lastReceipt: async (device, epoch) => (await this.#stored(device, epoch))?.receipt,
      addQuarantined: ({ name, digest, epoch, sequence, receivedMs, bytes }) =>
        writes.quarantine(name, digest, [name, digest, epoch, sequence, receivedMs, bytes]),
      removeQuarantined: (name, digest) => writes.quarantine(name, digest),
    };
  }

  async epoch(device: number, epoch: number): Promise<StoredEpoch | undefined> {
    return (await this.#stored(device, epoch))?.epoch;
  }

  async updateEpoch(device: number, epoch: number, state: Partial<NewEpoch>): Promise<void> {
    const { publicKey, held, decision, parent } = state;
    this.#concernsEveryone = true;
    await this.#write(
      device,
      `UPDATE epochs SET public_key = coalesce($3, public_key), held = coalesce($4, held), decision = coalesce($5, decision),
         parent_epoch = coalesce($6, parent_epoch), parent_sequence = coalesce($7, parent_sequence)
       WHERE device = $1 AND epoch = $2`,
      [
        ...[device, epoch, publicKey ?? null, held === undefined ? null : held ? 1 : 0, decision ?? null],
        ...[parent?.epoch ?? null, parent?.sequence ?? null],
      ],
    );
  }

  async evictEpoch(device: number, epoch: number, reason: string): Promise<void> {
    this.#concernsEveryone = true;
    await this.#write(
      device,
      `INSERT INTO evidence (device, epoch, sequence, digest, reason, received_ms, bytes)
       SELECT device, epoch, sequence, digest, $3, received_ms, bytes FROM records WHERE device = $1 AND epoch = $2
       ORDER BY sequence ON CONFLICT DO NOTHING`,
      [device, epoch, reason],
    );
    for (const table of ["records", "spans", "voids"])
      await this.#write(device, `DELETE FROM ${table} WHERE device = $1 AND epoch = $2`, [device, epoch]);
    await this.#write(device, "DELETE FROM drops WHERE device = $1 AND by_epoch = $2", [device, epoch]);
    await this.#write(
      device,
      `UPDATE epochs SET through = 0, through_digest = NULL, settled_through = 0, receipt = NULL, ended = NULL
       WHERE device = $1 AND epoch = $2`,
      [device, epoch],
    );
  }

  async #unseat(device: number, epoch: number, sequence: number, reason: string): Promise<void> {
    const place = [device, epoch, sequence];
    await this.#write(
      device,
      `INSERT INTO evidence (device, epoch, sequence, digest, reason, received_ms, bytes)
       SELECT device, epoch, sequence, digest, $4, received_ms, bytes FROM records
       WHERE device = $1 AND epoch = $2 AND sequence = $3 ON CONFLICT DO NOTHING`,
      [...place, reason],
    );
    await this.#write(device, "DELETE FROM records WHERE device = $1 AND epoch = $2 AND sequence = $3", place);
    await this.#write(device, "DELETE FROM voids WHERE device = $1 AND epoch = $2 AND last = $3 - 1", place);
    await this.#write(device, "DELETE FROM drops WHERE device = $1 AND by_epoch = $2 AND by_sequence = $3", place);
  }

  /** A write that is not gathered: what was read ahead of anything is forgotten. */
  async #write(device: number, text: string, values: readonly unknown[]): Promise<void> {
    this.#assertInScope(device);
    await this.#writes.flush();
    this.#epochs = undefined;
    this.#seats.clear();
    this.#seatsAhead = false;
    this.#voids = undefined;
    this.#writes.changed.add(device);
    await run(this.#connection, text, values);
  }

  async #read(text: string, values: readonly unknown[]) {
    await this.#writes.flush();
    return await run(this.#connection, text, values);
  }

  async #count(text: string, values: readonly unknown[]): Promise<number> {
    const [row] = await this.#read(text, values);
    return row?.n as number;
  }

  async #stored(device: number, epoch: number) {
    const key = epochKey({ device, epoch });
    if (this.#epochs === undefined || !this.#epochs.has(key)) {
      await this.#writes.flush();
      const isAhead = this.#epochs === undefined;
      const wanted = isAhead ? this.#epochsAhead({ device, epoch }) : [{ device, epoch }];
      const found = await readEpochs(this.#connection, wanted);
      if (this.#epochs === undefined) this.#epochs = found;
      else for (const [one, state] of found) this.#epochs.set(one, state);
    }
    return this.#epochs.get(key);
  }

  async #seat(device: number, epoch: number, sequence: number): Promise<Seat | undefined> {
    const key = placeKey({ device, epoch, sequence });
    if (!this.#seats.has(key)) {
      const wanted = [{ device, epoch, sequence }];
      if (!this.#seatsAhead)
        for (const place of this.#scope.places)
          for (const next of [place.sequence - 1, place.sequence, place.sequence + 1])
            wanted.push({ ...place, sequence: next });
      this.#seatsAhead = true;
      const unknown = wanted.filter((place) => !this.#seats.has(placeKey(place)));
      await this.#writes.flush();
      const found = await readSeats(this.#connection, unknown);
      for (const place of unknown) this.#seats.set(placeKey(place), found.get(placeKey(place)));
    }
    return this.#seats.get(key);
  }

  async #voidsOf(device: number, epoch: number): Promise<readonly SequenceRange[]> {
    const isInScope = this.#scope.places.some((place) => place.device === device && place.epoch === epoch);
    await this.#writes.flush();
    if (isInScope) {
      this.#voids ??= await readVoids(this.#connection, this.#epochsAhead({ device, epoch }), voidsAheadMax);
      if (this.#voids) return this.#voids.get(epochKey({ device, epoch })) ?? [];
    }
    const found = await readVoids(this.#connection, [{ device, epoch }], Number.MAX_SAFE_INTEGER - 1);
    return found?.get(epochKey({ device, epoch })) ?? [];
  }

  /** The epochs of the batch, and this one. */
  #epochsAhead(one: DeviceEpoch): DeviceEpoch[] {
    const wanted = new Map<string, DeviceEpoch>([[epochKey(one), one]]);
    for (const { device, epoch } of this.#scope.places) wanted.set(epochKey({ device, epoch }), { device, epoch });
    return [...wanted.values()];
  }

  #assertInScope(device: number): void {
    assert(this.#devices.has(device), `device ${device} is changed and not in the transaction's scope`);
  }
}
