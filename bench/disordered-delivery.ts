/** Records of many devices, the order in which they were sealed, and the disorder in which they are delivered. */
import { clockStates, statuses } from "../protocol/reading-status.ts";
import { eventCodes, noPrevious, previousBytes, type Row } from "../protocol/record.ts";
import { DeviceFixture, firstTimeS, type SealedRecord } from "../test/fullnode/device-fixture.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { nodeKey } from "../test/vectors/signature-suite.ts";

/** Deliveries may pass each other by so many places. */
export const windowDeliveries = 1_000;
const rowsPerRecord = 4;
const slotS = 60;
const codes = [2, 4];
const thinCodes = [2];

export interface Delivery {
  readonly device: SealingDevice;
  readonly record: SealedRecord;
}

export interface DeviceSize {
  /** Records of the epoch that ends by a rotation of the key, of the one behind it, and of one that nobody agreed to. */
  readonly first: number;
  readonly second: number;
  readonly held: number;
}

/** A device with three epochs; voids, dropped sequences, slots that failed at first, and slots that two plans tell of, in each. */
export class SealingDevice {
  readonly fixture: DeviceFixture;
  readonly request: Uint8Array;
  /** In the order of their sealing. */
  readonly records: SealedRecord[] = [];
  /** Those of `records` that tell of dropped ones. */
  readonly drops = new Set<SealedRecord>();
  readonly #random: SeededRandom;
  #timeS = firstTimeS;
  /** Generations keep the epochs' times apart where two of them speak of one meter at once. */
  #generation = 0;

  constructor(random: SeededRandom, size: DeviceSize) {
    this.#random = random;
    this.fixture = new DeviceFixture(random.integer(1, 0xffff), nodeKey(random.bytes(32)));
    this.request = this.fixture.request();
    this.#sealEpoch(size.first);
    const second = { key: nodeKey(random.bytes(32)), epoch: 0x1_0000 + random.integer(0, 0xffff) };
    this.records.push(this.fixture.rotate(second));
    this.#sealEpoch(size.second);
    this.fixture.begin(0x2_0000 + random.integer(0, 0xffff));
    this.#generation++;
    this.#sealEpoch(size.held);
  }

  #sealEpoch(count: number): void {
    const { fixture } = this;
    const end = this.records.length + count;
    while (this.records.length < end) {
      const chance = this.#random.integer(1, 100);
      if (chance === 1) this.records.push(fixture.void(this.#random.integer(1, 3)));
      else if (chance === 2 && fixture.sequence > 0) this.#drop();
      else if (chance <= 12) this.#sealPlans();
      else if (chance <= 20) this.#sealTwice();
      else this.#seal(0, codes, this.#rows(codes.length), chance === 21 ? clockStates.relative : 0);
    }
  }

  /** Two plans tell of the same slots with other values: the first one of the chain counts. */
  #sealPlans(): void {
    const rows = this.#rows(codes.length);
    this.#seal(0, codes, rows);
    const thin = rows.slice(-1).map(({ timeS, status, values }) => ({ timeS, status, values: [(values[0] ?? 0) + 1] }));
    this.#seal(1, thinCodes, thin);
  }

  /** Slots that had no answer, and then had one. */
  #sealTwice(): void {
    const rows = this.#rows(codes.length);
    const absent = rows.map(({ timeS }) => ({ timeS, status: statuses.notPresent, values: [] }));
    this.#seal(0, codes, absent);
    this.#seal(0, codes, rows);
  }

  /** A record that is never delivered, and one that says so. */
  #drop(): void {
    const { fixture } = this;
    const { epoch, sequence } = this.#sealed(0, codes, this.#rows(codes.length));
    const telling = fixture.events([eventCodes.dropped, epoch, sequence, sequence]);
    this.drops.add(telling);
    this.records.push(telling);
  }

  #rows(values: number): Row[] {
    return Array.from({ length: rowsPerRecord }, () => {
      this.#timeS += slotS;
      const wh = (this.#timeS - firstTimeS) / 2;
      return { timeS: this.#timeS, status: statuses.good, values: [wh, 3 * wh].slice(0, values) };
    });
  }

  #seal(plan: number, of: readonly number[], rows: readonly Row[], clockState = 0): void {
    this.records.push(this.#sealed(plan, of, rows, clockState));
  }

  #sealed(plan: number, of: readonly number[], rows: readonly Row[], clockState = 0): SealedRecord {
    const { fixture } = this;
    const link = {
      epoch: fixture.epoch,
      sequence: fixture.sequence + 1,
      previous: fixture.digest?.slice(0, previousBytes) ?? noPrevious,
      clockState,
      generation: this.#generation,
    };
    return fixture.seal({ kind: "reading", ...link, meter: 0, plan, slotS, codes: of, rows });
  }
}

/** All records once, each device's in the order of their sealing, the devices side by side. */
export function inOrder(devices: readonly SealingDevice[]): Delivery[] {
  const longest = Math.max(...devices.map(({ records }) => records.length));
  return Array.from({ length: longest }, (_, i) => i).flatMap((i) =>
    devices.flatMap((device) => {
      const record = device.records[i];
      return record ? [{ device, record }] : [];
    }),
  );
}

export interface Disorder {
  readonly deliveries: readonly Delivery[];
  /** Deliveries of epochs that had ended by then. */
  readonly replayed: number;
}

/** `count` deliveries of these records: each at least once, many more often, and old ones again long after. */
export function disordered(ordered: readonly Delivery[], count: number, random: SeededRandom): Disorder {
  const extra = count - ordered.length;
  const replays = Math.floor(extra / 4);
  const step = count / ordered.length; // places of the stream that a record's first delivery is from the next one's
  const keyed: { at: number; delivery: Delivery }[] = ordered.map((delivery, i) => ({ at: i * step, delivery }));
  const pickAt = (): [number, Delivery] => {
    const i = random.integer(0, ordered.length - 1);
    return [i * step, ordered[i] as Delivery];
  };
  let replayed = 0;
  for (let i = 0; i < extra; i++) {
    const [at, delivery] = pickAt();
    const isReplay = i < replays;
    const firstEpoch = delivery.device.records[0]?.epoch;
    const later = isReplay ? random.integer(Math.floor(at), count) : at;
    if (isReplay && delivery.record.epoch === firstEpoch && later > count / 2) replayed++;
    keyed.push({ at: later, delivery });
  }
  for (const one of keyed) one.at += random.integer(0, windowDeliveries);
  keyed.sort((a, b) => a.at - b.at);
  return { deliveries: keyed.map(({ delivery }) => delivery), replayed };
}
