/** Queries of the store on PostgreSQL that transactions and everyone else share: for many places at once. */
import { asArrays, type Connection, columnsOf, type PostgresRow, run, unnest } from "./postgres-connection.ts";
import type {
  DeclaredDrop,
  EpochDecision,
  EpochKey,
  RecordPlace,
  Seat,
  Span,
  StoredEpoch,
  StorePlace,
} from "./store.ts";

export interface DeviceEpoch {
  readonly device: number;
  readonly epoch: number;
}

const pairColumns = columnsOf("device int, epoch bigint");
const placeColumns = columnsOf("device int, epoch bigint, sequence bigint");
export const seatColumns = "sequence, predecessor, digest, previous, settled";

export function epochKey({ device, epoch }: DeviceEpoch): string {
  return `${device}:${epoch}`;
}

export function placeKey({ device, epoch, sequence }: StorePlace): string {
  return `${device}:${epoch}:${sequence}`;
}

function pairs(of: readonly DeviceEpoch[]): unknown[][] {
  return asArrays(
    pairColumns,
    of.map(({ device, epoch }) => [device, epoch]),
  );
}

/** Epochs by {@link epochKey}, with the receipt that each was given last. */
export async function readEpochs(
  connection: Connection,
  of: readonly DeviceEpoch[],
): Promise<Map<string, { epoch: StoredEpoch; receipt: Uint8Array | undefined }>> {
  const found = new Map<string, { epoch: StoredEpoch; receipt: Uint8Array | undefined }>();
  if (of.length === 0) return found;
  const u = unnest(pairColumns);
  const values = pairs(of);
  const epochs = await run(
    connection,
    `SELECT e.*, (SELECT count(*) FROM evidence v WHERE v.device = e.device AND v.epoch = e.epoch) AS evidence
     FROM ${u} JOIN epochs e USING (device, epoch)`,
    values,
  );
  const spans = grouped(
    await run(connection, `SELECT s.* FROM ${u} JOIN spans s USING (device, epoch) ORDER BY s.first`, values),
  );
  const drops = await readDrops(connection, of);
  for (const row of epochs) {
    const key = epochKey(row as unknown as DeviceEpoch);
    const whole = { first: 1, last: row.through as number, digest: row.through_digest as Uint8Array };
    const others = (spans.get(key) ?? []).map(({ first, last, digest }) => ({ first, last, digest })) as Span[];
    const epoch: StoredEpoch = {
      epoch: row.epoch as number,
      publicKey: row.public_key as Uint8Array,
      held: row.held === 1,
      decision: row.decision as EpochDecision,
      ...(row.parent_epoch !== null && {
        parent: { epoch: row.parent_epoch as number, sequence: row.parent_sequence as number },
      }),
      ...(row.ended !== null && { ended: row.ended as number }),
      ...(drops.get(key) ?? { drops: [], gone: 0 }),
      settledThrough: row.settled_through as number,
      spans: whole.last > 0 ? [whole, ...others] : others,
      evidence: row.evidence as number,
    };
    found.set(key, { epoch, receipt: (row.receipt as Uint8Array | null) ?? undefined });
  }
  return found;
}

export async function readDrops(
  connection: Connection,
  of: readonly DeviceEpoch[],
): Promise<Map<string, { drops: DeclaredDrop[]; gone: number }>> {
  const rows = await run(
    connection,
    `SELECT d.device, d.epoch, d.last, d.by_epoch, d.by_sequence AS sequence, r.settled
     FROM ${unnest(pairColumns)} JOIN drops d USING (device, epoch)
     JOIN records r ON r.device = d.device AND r.epoch = d.by_epoch AND r.sequence = d.by_sequence
     ORDER BY d.by_sequence, d.last`,
    pairs(of),
  );
  const found = new Map<string, { drops: DeclaredDrop[]; gone: number }>();
  for (const row of rows) {
    const { device, epoch, last, sequence } = row as unknown as DeviceEpoch & DeclaredDrop;
    const state = found.get(epochKey({ device, epoch })) ?? { drops: [], gone: 0 };
    found.set(epochKey({ device, epoch }), state);
    if (row.settled === 1) state.gone = Math.max(state.gone, last);
    else if (row.by_epoch === epoch) state.drops.push({ last, sequence });
  }
  return found;
}

export async function readSeats(connection: Connection, places: readonly StorePlace[]): Promise<Map<string, Seat>> {
  const rows =
    places.length === 0
      ? []
      : await run(
          connection,
          `SELECT r.device, r.epoch, ${seatColumns.replaceAll(/\w+/g, "r.$&")}
           FROM ${unnest(placeColumns)} JOIN records r USING (device, epoch, sequence)`,
          asArrays(
            placeColumns,
            places.map(({ device, epoch, sequence }) => [device, epoch, sequence]),
          ),
        );
  return new Map(rows.map((row) => [placeKey(row as unknown as StorePlace), seatOf(row)]));
}

/** Sequences of voids by {@link epochKey}, ascending by their first; undefined where there are more than `limit`. */
export async function readVoids(
  connection: Connection,
  of: readonly DeviceEpoch[],
  limit: number,
): Promise<Map<string, { first: number; last: number }[]> | undefined> {
  const rows = await run(
    connection,
    `SELECT v.* FROM ${unnest(pairColumns)} JOIN voids v USING (device, epoch) ORDER BY v.first LIMIT ${limit + 1}`,
    pairs(of),
  );
  if (rows.length > limit) return undefined;
  return grouped(rows) as unknown as Map<string, { first: number; last: number }[]>;
}

export async function readEpochKeys(connection: Connection, device: number): Promise<EpochKey[]> {
  const rows = await run(
    connection,
    "SELECT epoch, public_key, held, decision, parent_epoch, parent_sequence FROM epochs WHERE device = $1 ORDER BY epoch",
    [device],
  );
  return rows.map((row) => ({
    epoch: row.epoch as number,
    publicKey: row.public_key as Uint8Array,
    held: row.held === 1,
    decision: row.decision as EpochDecision,
    ...(row.parent_epoch !== null && {
      parent: { epoch: row.parent_epoch as number, sequence: row.parent_sequence as number },
    }),
  }));
}

export async function readBytes(
  connection: Connection,
  device: number,
  { epoch, sequence }: RecordPlace,
): Promise<Uint8Array | undefined> {
  const [row] = await run(connection, "SELECT bytes FROM records WHERE device = $1 AND epoch = $2 AND sequence = $3", [
    device,
    epoch,
    sequence,
  ]);
  return row?.bytes as Uint8Array | undefined;
}

export function seatOf(row: PostgresRow): Seat {
  return {
    sequence: row.sequence as number,
    predecessor: row.predecessor as number,
    digest: row.digest as Uint8Array,
    previous: row.previous as Uint8Array,
    settled: row.settled === 1,
  };
}

function grouped(rows: readonly PostgresRow[]): Map<string, PostgresRow[]> {
  const groups = new Map<string, PostgresRow[]>();
  for (const row of rows) {
    const key = epochKey(row as unknown as DeviceEpoch);
    const group = groups.get(key);
    if (group) group.push(row);
    else groups.set(key, [row]);
  }
  return groups;
}
