/**
 * Two hubs with one key: a card is copied while nobody runs on it, and both go on at the same time, and deliver to one full node. The
 * conflict must be flagged at the first record whose sequence or predecessor is stored with another digest; the evidence is kept, byte for
 * byte; nothing is booked twice; and what either wallet let go of is at the node. Each hub delivers by an MQTT client of its own, as two
 * hubs of one client id would push each other off the broker; a third client sees the messages in the broker's order. Control: stores that
 * take the same messages without looking at the chain.
 */
import { setTimeout as pause } from "node:timers/promises";
import { Scene } from "../test/system/scene-fixture.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { type Card, inScene, type NodePeer, Pair, twinOf } from "./card-hub.ts";
import { ChainReader, NaiveStores } from "./delivered-records.ts";
import { changedRows, NodeBooks } from "./node-books.ts";
import { RecordCarrier, RecordObserver } from "./record-carrier.ts";

const firstConflictMax = 200;

const figures = {
  rounds: 0,
  stepByStep: 0,
  outOfOrder: 0,
  flaggedAtFirstConflict: 0,
  toldAsFork: 0,
  otherRefusals: 0,
  delivered: 0,
  evidence: 0,
  evidenceUntold: 0,
  lostRecords: 0,
  bookedRowsChanged: 0,
  wronglyBooked: 0,
  placesWithTwoRecords: 0,
  epochsBegun: 0,
  bookedRows: 0,
  acceptedEpochs: 0,
};
const control = { keysBookedTwice: 0, recordsOverwritten: 0 };

await runCampaign("clone", async (campaign) => {
  const scene = new Scene({ after: (ending) => campaign.after(ending as () => unknown) });
  const pair = await Pair.make(scene, campaign);
  const rounds = campaign.count(50, 4);
  while (figures.rounds < rounds) {
    await inScene(campaign, (ofRound) => meet(campaign, pair, ofRound));
    figures.rounds++;
    campaign.progress(figures.rounds, rounds, `${figures.evidence} records are evidence`);
  }
  const { flaggedAtFirstConflict, toldAsFork, epochsBegun, evidence } = figures;
  const { lostRecords, bookedRowsChanged, wronglyBooked, placesWithTwoRecords, otherRefusals, evidenceUntold } =
    figures;
  const wrong = lostRecords + bookedRowsChanged + wronglyBooked + placesWithTwoRecords + otherRefusals + evidenceUntold;
  const isFlagged = flaggedAtFirstConflict === rounds && toldAsFork === rounds && epochsBegun >= rounds;
  const canFail = control.keysBookedTwice > 0 && control.recordsOverwritten > 0;
  return { figures, control, holds: wrong === 0 && isFlagged && evidence >= rounds && canFail };
});

/** One of the two hubs. */
interface Hub {
  readonly card: Card;
  readonly carrier: RecordCarrier;
  /** Both meters are read at the same slots, and show something else. */
  readonly offsetWh: number;
  readonly slots: Generator<number, never>;
  /** No receipt comes through until both have sent all. */
  readonly isDeaf: boolean;
  /** What it does while both run freely. */
  readonly plan: readonly {
    readonly rows: number;
    readonly waitMs: number;
    readonly deliver: number;
    readonly isMixed: boolean;
  }[];
}

async function meet(campaign: Campaign, pair: Pair, scene: Scene): Promise<void> {
  const { random } = campaign;
  const node = await pair.node(scene);
  const books = new NodeBooks(node.folder);
  const original = pair.card(scene, "original");
  const observer = await RecordObserver.connect(node.port, pair.name, "observer");
  const startS = Math.floor(Date.now() / 1_000) - 2_000_000;
  const mixes = Math.floor(figures.rounds / 2) % 2 === 1;
  const common = random.integer(0, 8);
  const hubOf = async (card: Card, name: string, offsetWh: number, fromS: number): Promise<Hub> => ({
    card,
    carrier: await RecordCarrier.connect(node.port, pair.name, name),
    offsetWh,
    slots: slotsFrom(fromS),
    isDeaf: random.chance(50),
    plan: Array.from({ length: random.integer(3, 12) }, () => ({
      rows: random.integer(0, 4),
      waitMs: random.integer(0, 30),
      deliver: random.integer(0, 100),
      isMixed: mixes && random.chance(50),
    })),
  });

  // What both have in common.
  const first = await hubOf(original, "hub", 0, startS);
  await original.start();
  await sealRows(first, common);
  await first.carrier.deliverAll(original.client);
  await original.stop(random.chance(50));
  await first.carrier.close();
  const bookedBefore = books.booked();

  const twin = twinOf(original, scene.path("twin"));
  const hubs = [
    await hubOf(original, "hub", 0, startS + common),
    await hubOf(twin, "twin", 7, startS + common),
  ] as const;
  await Promise.all(hubs.map(({ card }) => card.start()));
  // Started within one second, both may have sealed the same first record: now they differ.
  for (const hub of hubs) await sealRows(hub, random.integer(1, 3));
  if (figures.rounds % 2 === 0) {
    figures.stepByStep++;
    await untilConflict(campaign, node, books, hubs, observer);
  }
  if (mixes) figures.outOfOrder++;
  await Promise.all(hubs.map((hub) => runFreely(hub)));
  await Promise.all(hubs.map(({ card, carrier }) => carrier.deliverAll(card.client)));

  const epochs = books.query("SELECT epoch FROM epochs").map(({ epoch }) => epoch as number);
  const sealed = (await Promise.all(hubs.map(({ card }) => card.records(epochs)))).flat();
  for (const { card, carrier } of hubs) {
    await carrier.close();
    await card.stop();
  }
  await node.process.stop(); // its last refusals are told
  await observer.close();
  judge(campaign, books, node, observer.records, bookedBefore);
  figures.lostRecords += books.lostOf(sealed);
  // Whoever of them its owner says is genuine: nothing of what was booked changes.
  const booked = books.booked();
  for (const epoch of books.heldEpochs()) {
    await scene.succeed("ecp-node", "epoch", "accept", pair.device, `${epoch}`, "--data", node.folder);
    figures.acceptedEpochs++;
  }
  figures.bookedRowsChanged += changedRows(booked, books.booked());
  figures.wronglyBooked += books.wronglyBooked();
}

/** One record at a time, of this hub or that, up to the first that conflicts: the node must say so of this very record. */
async function untilConflict(
  campaign: Campaign,
  node: NodePeer,
  books: NodeBooks,
  hubs: readonly [Hub, Hub],
  observer: RecordObserver,
): Promise<void> {
  const reader = new ChainReader();
  for (const { bytes } of observer.records) reader.take(bytes);
  const evidenceBefore = books.evidence().length;
  const cursors = new Map<Hub, number>();
  for (let i = 0; i < firstConflictMax; i++) {
    const hub = campaign.random.pick(hubs);
    const cursor = cursors.get(hub) ?? 0;
    cursors.set(hub, cursor + 1);
    const bytes = (await waitingOrMore(hub, cursor))[cursor] as Uint8Array;
    const expected = reader.take(bytes);
    const position = node.process.position;
    await hub.carrier.publish(bytes);
    // Its receipts wait meanwhile: a hub that saw one would begin its epoch before there is a conflict.
    if (expected === "again") continue;
    const { event, reason, sequence } = await node.process.event(
      (said) => said.event === "stored" || said.event === "refused",
      position,
    );
    const said = event === "stored" ? "stored" : reason;
    if (said !== expected || (event === "stored" && sequence !== reader.lastSequence))
      throw new Error(`of record ${reader.lastSequence} the node said ${String(said)}, expected: ${expected}`);
    const evidence = books.evidence().length - evidenceBefore;
    if (evidence !== (expected === "fork" ? 1 : 0))
      throw new Error(`${evidence} records are evidence after ${expected}`);
    if (expected === "fork") return;
  }
  throw new Error(`two hubs sent ${firstConflictMax} records, and none conflicts`);
}

async function waitingOrMore(hub: Hub, cursor: number): Promise<Uint8Array[]> {
  const waiting = await hub.carrier.waiting(hub.card.client);
  if (waiting.length > cursor) return waiting;
  await sealRows(hub, 1);
  return await hub.carrier.waiting(hub.card.client);
}

async function runFreely({ plan, isDeaf, ...hub }: Hub): Promise<void> {
  const { carrier, card } = hub;
  for (const { rows, waitMs, deliver, isMixed } of plan) {
    await sealRows(hub, rows);
    const waiting = await carrier.waiting(card.client);
    const some = waiting.slice(0, Math.ceil((waiting.length * deliver) / 100));
    for (const bytes of isMixed ? some.toReversed() : some) await carrier.publish(bytes);
    if (!isDeaf) await carrier.takeReceipts(card.client, waitMs);
    await pause(waitMs);
  }
}

async function sealRows(
  { card, slots, offsetWh }: Pick<Hub, "card" | "slots" | "offsetWh">,
  rows: number,
): Promise<void> {
  const times = Array.from({ length: rows }, () => slots.next().value);
  await card.seal(times, offsetWh);
}

function* slotsFrom(startS: number): Generator<number, never> {
  for (let timeS = startS; ; ) yield ++timeS;
}

function judge(
  campaign: Campaign,
  books: NodeBooks,
  node: NodePeer,
  delivered: RecordObserver["records"],
  bookedBefore: ReturnType<NodeBooks["booked"]>,
): void {
  const evidence = books.evidence();
  const reader = new ChainReader();
  const naive = new NaiveStores();
  for (const { bytes } of delivered) {
    reader.take(bytes);
    naive.take(bytes);
  }
  figures.delivered += delivered.length;
  figures.evidence += evidence.length;
  if (reader.firstConflict !== undefined && evidence[0]?.digest === reader.firstConflict)
    figures.flaggedAtFirstConflict++;
  else campaign.say(`the first conflict is ${reader.firstConflict}, the first evidence ${evidence[0]?.digest}`);
  const refusals = node.process.events().filter(({ event }) => event === "refused");
  const told = refusals
    .filter(({ reason }) => reason === "fork")
    .reduce((sum, { count }) => sum + (count as number), 0);
  if (told > 0) figures.toldAsFork++;
  figures.evidenceUntold += Math.max(0, evidence.length - told);
  figures.otherRefusals += refusals.filter(({ reason }) => reason !== "fork").length;
  figures.lostRecords += books.lostOf(delivered);
  const places = books.records().map(({ epoch, sequence }) => `${epoch}/${sequence}`);
  figures.placesWithTwoRecords += places.length - new Set(places).size;
  const booked = books.booked();
  figures.bookedRows += booked.size;
  figures.bookedRowsChanged += changedRows(bookedBefore, booked);
  figures.wronglyBooked += books.wronglyBooked();
  const held = new Set(books.heldEpochs());
  figures.wronglyBooked += [...booked.values()].filter(({ epoch }) => held.has(epoch)).length;
  figures.epochsBegun += held.size;
  control.keysBookedTwice += naive.keysBookedTwice;
  control.recordsOverwritten += naive.recordsOverwritten;
}
