import assert from "node:assert/strict";
import { test } from "node:test";
import { EpochForwarders } from "../../agent/epoch-forwarders.ts";
import { LoraSource } from "../../agent/lora-source.ts";
import { statuses } from "../../protocol/reading-status.ts";
import { eventCodes, previousBytes, signRecord } from "../../protocol/record.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";
import { sampleHello } from "./scripted-wallet.ts";

const epoch = sampleHello.epoch;
/** An epoch of the same wallet that has ended. */
const before = epoch + 1;
const never = () => false;
const minuteMs = 60_000;

/** What a record is: plan-1 rows of a meter, events, or something that must not leave bare. */
type Kind = number | "event" | "withheld" | "void";

class Journal {
  nowMs = 0;
  readonly reads: [from: number, to: number][] = [];
  readonly forwarders = new EpochForwarders();
  readonly kinds = new Map<number, Kind[]>([[epoch, []]]);
  away = false;
  /** Records and withheld ones of one answer. */
  answerMax = 1_000;
  news = 0;
  readonly source: LoraSource;

  constructor(ripeAfterMs = 0, holdMs = 0) {
    this.source = new LoraSource({
      ...{ forwarders: this.forwarders, nowMs: () => this.nowMs, ripeAfterMs, holdMs: () => holdMs },
      read: async (from, to, of) => {
        if (this.away) throw new Error("away");
        this.reads.push([from, to]);
        const all = (this.kinds.get(of) ?? []).map((kind, place) => [place + 1, kind] as const);
        const asked = all.filter(([sequence, kind]) => sequence >= from && sequence <= to && kind !== "void");
        const given = asked.slice(0, this.answerMax);
        return {
          records: given.flatMap(([sequence, kind]) =>
            kind === "withheld" || kind === "void" ? [] : [[sequence, recordOf(of, sequence, kind)] as const],
          ),
          withheld: given.flatMap(([sequence, kind]) => (kind === "withheld" ? [sequence] : [])),
        };
      },
    });
    this.source.onNews(() => {
      this.news++;
    });
    this.meet();
  }

  meet(): void {
    const nextSequence = (this.kinds.get(epoch)?.length ?? 0) + 1;
    this.forwarders.meet({ ...sampleHello, nextSequence, through: 0 }, true);
  }

  seal(...kinds: Kind[]): void {
    for (const kind of kinds) {
      const all = this.kinds.get(epoch) as Kind[];
      all.push(kind);
      this.forwarders.running.sealed(all.length, this.nowMs);
    }
  }

  stored(through: number, ...ranges: [number, number][]): void {
    this.forwarders.running.released(through, ranges, this.nowMs);
  }

  /** Sequences in the order in which they would be sent, were none of them ever stored. */
  async order(): Promise<number[]> {
    const order: number[] = [];
    for (;;) {
      const record = await this.source.next((_, sequence) => order.includes(sequence));
      if (!record) return order;
      order.push(record.sequence);
    }
  }

  pass(ms: number): void {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs; ) {
      this.nowMs += 1_000;
      this.source.look();
    }
  }
}

function recordOf(of: number, sequence: number, kind: number | "event"): Uint8Array {
  const link = { epoch: of, sequence, previous: new Uint8Array(previousBytes), clockState: 1, generation: 0 };
  return signRecord(
    kind === "event"
      ? { kind: "event", ...link, timeS: 1, events: [[eventCodes.stopped]] }
      : {
          ...{ kind: "reading", ...link, meter: kind, plan: 1, slotS: 900, codes: [2] },
          rows: [{ timeS: 900 * sequence, status: statuses.good, values: [1] }],
        },
    () => new Uint8Array(64),
  );
}

test("the newest batch of each meter goes first, then what waits longest; what must not leave bare is passed over", async () => {
  const journal = new Journal();
  journal.seal("event", 0, 1, "withheld", 0, 1, "void", "event");
  assert.deepEqual(await journal.order(), [6, 5, 1, 2, 3, 8]);
  journal.seal(1);
  assert.deepEqual(await journal.order(), [9, 5, 1, 2, 3, 6, 8]);
});

test("what a receipt names is not sent, also above a gap; where all is named nothing is left", async () => {
  const journal = new Journal();
  journal.seal(0, 0, 0, 0, 0, 0);
  journal.stored(1, [4, 5]);
  assert.deepEqual(await journal.order(), [6, 2, 3]);
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6].map((sequence) => journal.source.isStored(epoch, sequence)),
    [true, false, false, true, true, false],
  );
  journal.stored(6);
  assert.deepEqual(await journal.order(), []);
  assert.equal(journal.source.isStored(before, 1), true, "an epoch that is not named any more is complete");
});

test("each sealed record is looked at once, however long the answers of the wallet may be", async () => {
  const journal = new Journal();
  journal.answerMax = 3;
  journal.seal(...Array.from({ length: 20 }, (_, i): Kind => (i % 5 === 0 ? 0 : "withheld")));
  assert.deepEqual(await journal.order(), [16, 1, 6, 11]);
  const searches = journal.reads.filter(([from, to]) => to > from || from === 20).length;
  assert.equal(searches, 7);
  journal.reads.length = 0;
  await journal.source.next(never);
  assert.deepEqual(journal.reads, [[16, 16]]);
});

test("a wallet that is away rejects, and is asked from there the next time", async () => {
  const journal = new Journal();
  journal.seal(0, "event");
  journal.away = true;
  await assert.rejects(journal.source.next(never), /away/);
  journal.away = false;
  assert.deepEqual(await journal.order(), [1, 2]);
});

test("a record that was recycled since it was found is passed over", async () => {
  const journal = new Journal();
  journal.seal(0, 0, 0);
  assert.deepEqual(await journal.order(), [3, 1, 2]);
  (journal.kinds.get(epoch) as Kind[])[0] = "void";
  assert.deepEqual(await journal.order(), [3, 2]);
});

test("beside a broker a record goes only once no receipt has named it for ten minutes", async () => {
  const journal = new Journal(10 * minuteMs);
  journal.seal(0);
  journal.pass(9 * minuteMs);
  assert.equal(await journal.source.next(never), undefined);
  assert.equal(journal.reads.length, 0, "what a broker delivers in time costs no reading back");
  journal.seal(0);
  journal.pass(1.5 * minuteMs);
  assert.ok(journal.news > 0, "the uplink is told that one has ripened");
  assert.deepEqual(await journal.order(), [1]);
  journal.stored(1);
  journal.pass(10 * minuteMs);
  assert.deepEqual(await journal.order(), [2]);
  journal.stored(2);
  journal.seal(0);
  journal.pass(5 * minuteMs);
  journal.stored(3);
  journal.pass(30 * minuteMs);
  assert.deepEqual(await journal.order(), []);
});

test("what was sealed just now is held back for its time, with what is sealed beside it; the rest goes meanwhile", async () => {
  const journal = new Journal(0, minuteMs);
  journal.seal("event", 0, 1);
  journal.source.sealed(epoch, 2);
  journal.source.sealed(epoch, 3);
  assert.deepEqual(await journal.order(), [1]);
  journal.pass(30_000);
  journal.seal(0);
  journal.source.sealed(epoch, 4);
  assert.deepEqual(await journal.order(), [1]);
  const { news } = journal;
  journal.pass(31_000);
  assert.ok(journal.news > news, "the uplink is told when its time has come");
  assert.deepEqual(await journal.order(), [4, 3, 1, 2]);
  const control = new Journal(0, 0);
  control.seal("event", 0, 1);
  control.source.sealed(epoch, 2);
  assert.deepEqual(await control.order(), [3, 2, 1]);
});

test("records of epochs before come after the newest, oldest epoch first, and nothing of a complete one", async () => {
  const journal = new Journal();
  journal.kinds.set(before, ["event", 0, 0]);
  journal.seal(0, 0);
  const earlier = [{ epoch: before, through: 1, last: 3 }];
  journal.forwarders.meet({ ...sampleHello, nextSequence: 3, through: 0, earlierEpochs: earlier }, true);
  const order: string[] = [];
  const name = (of: number, sequence: number) => `${of === before ? "before" : "now"} ${sequence}`;
  for (;;) {
    const record = await journal.source.next((of, sequence) => order.includes(name(of, sequence)));
    if (!record) break;
    order.push(name(record.epoch, record.sequence));
  }
  assert.deepEqual(order, ["now 2", "before 2", "before 3", "now 1"]);
  journal.forwarders.meet({ ...sampleHello, nextSequence: 3, through: 0 }, false);
  assert.deepEqual(await journal.order(), [2, 1]);
});

test("seeded: whatever is sealed and named in whatever order, exactly what is unnamed and may leave is given", async (t) => {
  const random = randomOfRun();
  t.diagnostic(`ECP_TEST_SEED=${random.seed}`);
  const pick = (max: number) => random.integer(0, max - 1);
  for (let round = 0; round < 200; round++) {
    const journal = new Journal();
    journal.answerMax = 1 + pick(10);
    const kinds: Kind[] = [];
    const named = new Set<number>();
    for (let step = 0; step < 8; step++) {
      const more = Array.from(
        { length: pick(6) },
        (): Kind => ([0, 1, "event", "withheld", "void"] as const)[pick(5)] ?? 0,
      );
      kinds.push(...more);
      journal.seal(...more);
      const first = 1 + pick(kinds.length + 1);
      const last = Math.min(kinds.length, first + pick(4));
      if (last >= first && random.chance(60)) {
        journal.stored(journal.forwarders.running.through, [first, last]);
        for (let sequence = first; sequence <= last; sequence++) named.add(sequence);
      }
      const expected = kinds.flatMap((kind, place) =>
        kind === "withheld" || kind === "void" || named.has(place + 1) ? [] : [place + 1],
      );
      assert.deepEqual(
        (await journal.order()).sort((a, b) => a - b),
        expected,
      );
    }
  }
});
