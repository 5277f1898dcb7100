/**
 * The content of a store as lines of JSON that depend on what devices have sent and owners have said, and on nothing else: not on
 * when, in which order or how often records came, nor on the engine. Two stores with the same content give the same bytes. Left
 * out are times of arrival, receipts, revisions, corrections, quarantine and the reasons of evidence.
 */
import { createHash } from "node:crypto";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import type { Awaitable, DeviceSummary, RecordPlace, Store } from "./store.ts";
import type { RowKey, Series } from "./store-reading.ts";

const pageItems = 1_000;
const endOfTimeS = 2 ** 33;

/** Lines without their line ends. */
export async function* canonicalDump(store: Store): AsyncGenerator<string> {
  const devices = [...(await store.devices())].sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const device of devices) {
    yield JSON.stringify({
      device: device.name,
      currentKey: hex(device.currentKey),
      software: device.softwareId,
      meters: device.meters,
      request: hex(device.requestDigest),
    });
    yield* epochLines(device);
    yield* recordLines(store, device.id);
    for (const { epoch, sequence, digest } of await store.evidence(device.id))
      yield JSON.stringify({ evidence: [epoch, sequence, hex(digest)] });
    yield* rowLines(store, device.id);
    for (const series of await store.series(device.id)) yield* slotLines(store, device.id, series);
    for (const { meter, generation, timeS, epoch, sequence, installation } of await store.exchanges(device.id))
      yield JSON.stringify({ exchange: [meter, generation, timeS, epoch, sequence, installation] });
  }
  yield JSON.stringify({ ledgerQueue: await store.ledgerQueue() });
}

function* epochLines(device: DeviceSummary): Generator<string> {
  for (const one of [...device.epochs].sort((a, b) => a.epoch - b.epoch))
    yield JSON.stringify({
      epoch: one.epoch,
      key: hex(one.publicKey),
      held: one.held,
      decision: one.decision,
      parent: one.parent ? [one.parent.epoch, one.parent.sequence] : null,
      ended: one.ended ?? null,
      gone: one.gone,
      settledThrough: one.settledThrough,
      spans: one.spans.map(({ first, last, digest }) => [first, last, hex(digest)]),
    });
}

async function* recordLines(store: Store, device: number): AsyncGenerator<string> {
  const records = pages((after: RecordPlace | undefined) => store.recordsAfter(device, after, pageItems));
  for await (const { epoch, sequence, predecessor, settled, digest, previous, bytes } of records) {
    const isWhole = equalBytes(createHash("sha256").update(bytes).digest(), digest);
    const record = [epoch, sequence, predecessor, settled ? 1 : 0, hex(digest), hex(previous)];
    yield JSON.stringify(isWhole ? { record } : { record, damaged: true });
  }
}

async function* rowLines(store: Store, device: number): AsyncGenerator<string> {
  for await (const row of pages((after: RowKey | undefined) => store.rowsAfter(device, after, pageItems))) {
    const { meter, generation, timeS, slotS, status, booked, epoch, sequence, values } = row;
    yield JSON.stringify({
      row: [meter, generation, timeS, slotS, status, booked ? 1 : 0, epoch, sequence, values],
    });
  }
}

async function* slotLines(store: Store, device: number, series: Series): AsyncGenerator<string> {
  const next = (after: { endS: number } | undefined) =>
    store.slots(device, series, after?.endS ?? -1, endOfTimeS, pageItems);
  for await (const { meter, generation, endS, summary } of pages(next)) {
    const codes = summary.codes.map((one) => [
      ...[one.code, one.count, one.firstTimeS, one.first, one.lastTimeS, one.last, one.min, one.max, one.sum],
    ]);
    yield JSON.stringify({ slot: [meter, generation, endS, summary.rows, codes] });
  }
}

/** All items, page after page. */
async function* pages<T>(next: (after: T | undefined) => Awaitable<readonly T[]>): AsyncGenerator<T> {
  let last: T | undefined;
  for (;;) {
    const page = await next(last);
    yield* page;
    if (page.length < pageItems) return;
    last = page.at(-1);
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
