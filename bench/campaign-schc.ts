/**
 * SCHC sessions over random links: every packet is put together byte for byte, or its session ends with a name; nothing is handed over
 * that nobody sent, nothing is acknowledged that is not stored; 99 of 100 sessions are acknowledged where a tenth of the frames is
 * lost. Frames by a hostile device throw nothing and leave no more than one packet behind. Control: a receiver that takes what is
 * there for the packet, without its check sequence.
 */
import { SchcReceiver } from "../fullnode/schc-receiver.ts";
import { decodeFragment, encodeAnswer } from "../protocol/schc.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { CarelessEnd, hexOf, type LinkTrouble, RealEnd, type ReceivingEnd, SchcLink } from "./schc-link.ts";

const quiet: LinkTrouble = {
  lossUp: 0,
  lossDown: 0,
  lossBad: 0,
  toBad: 0,
  toGood: 100,
  doubled: 0,
  delayed: 0,
  lateAnswer: 0,
  dataRateChange: 0,
  fOpts: 0,
  restart: 0,
  nodeCrash: 0,
  isHasty: false,
};
const tenthLost: LinkTrouble = { ...quiet, lossUp: 10, lossDown: 10 };

function randomTrouble(random: SeededRandom): LinkTrouble {
  const sometimes = (most: number) => (random.chance(50) ? random.integer(0, most) : 0);
  return {
    lossUp: sometimes(40),
    lossDown: sometimes(40),
    lossBad: sometimes(95),
    toBad: sometimes(20),
    toGood: random.integer(5, 60),
    doubled: sometimes(20),
    delayed: sometimes(20),
    lateAnswer: random.pick([0, 50, 100]),
    dataRateChange: sometimes(20),
    fOpts: sometimes(20),
    restart: sometimes(20),
    nodeCrash: sometimes(30),
    isHasty: random.chance(50),
  };
}

function randomPacket(random: SeededRandom): Uint8Array {
  const length = random.chance(70) ? random.integer(1, 320) : random.pick([630, 1260, 2520, random.integer(1, 2520)]);
  return random.bytes(length);
}

interface Tally {
  sessions: number;
  acknowledged: number;
  unacknowledged: number;
  otherwise: number;
  frames: number;
  wrongPackets: number;
  /** Sessions acknowledged though their packet is not stored. */
  falselyAcknowledged: number;
  /** The same on hasty links. */
  staleAcknowledged: number;
}

function run(random: SeededRandom, trouble: LinkTrouble, sessions: number, end: ReceivingEnd, tally: Tally): void {
  const link = new SchcLink(random, trouble, end);
  for (let i = 0; i < sessions; i++) {
    const packet = randomPacket(random);
    const { outcome, frames } = link.send(packet);
    const isStored = link.stored.has(hexOf(packet));
    tally.sessions++;
    tally.frames += frames;
    if (outcome === "acknowledged") tally.acknowledged++;
    else if (outcome === "unacknowledged") tally.unacknowledged++;
    else tally.otherwise++;
    if (outcome !== "acknowledged" || isStored) continue;
    // There, an answer to the packet before may be taken for one to this packet: nothing in an ACK tells them apart. Hence four FPorts in
    // turn, answers that expire, and a record that is let go of for its receipt only.
    if (trouble.isHasty) tally.staleAcknowledged++;
    else tally.falselyAcknowledged++;
  }
  tally.wrongPackets += link.wrongPackets;
}

const newTally = (): Tally => ({
  sessions: 0,
  acknowledged: 0,
  unacknowledged: 0,
  otherwise: 0,
  frames: 0,
  wrongPackets: 0,
  falselyAcknowledged: 0,
  staleAcknowledged: 0,
});

/** Frames of a device that means harm: noise, mutants, All-1s for tiles that never come. */
function hostile(campaign: Campaign, frames: number): { tilesMost: number; slowestMs: number } {
  const { random } = campaign;
  let receiver = new SchcReceiver();
  let tilesMost = 0;
  let slowestMs = 0;
  const heads = [0x3e, 0x00, 0x3f, 0x7f, 0xbf, 0xff, 0xfe, 0xc0, 0x12];
  for (let i = 0; i < frames; i++) {
    const bytes = random.bytes(random.pick([1, 1, 5, 6, 11, 15, 51, 242, random.integer(0, 300)]));
    if (bytes.length > 0 && random.chance(70)) bytes[0] = random.pick(heads);
    if (random.chance(50)) bytes.fill(0, 1);
    const startedMs = performance.now();
    receiver.receive(bytes, random.chance(90) ? i : random.uint32(), i * 1000, random.chance(99) ? "a" : `${i}`);
    slowestMs = Math.max(slowestMs, performance.now() - startedMs);
    if (random.chance(2)) receiver.stored(i * 1000);
    if (random.chance(2)) receiver.refused(i * 1000);
    if (random.chance(1)) receiver.expire(i * 1000 + 50_000_000);
    const { tiles, packet } = receiver.state(i * 1000);
    tilesMost = Math.max(tilesMost, tiles.length, Math.ceil((packet?.length ?? 0) / 10));
    if (random.chance(1)) receiver = SchcReceiver.restore(receiver.state(0), 0);
  }
  return { tilesMost, slowestMs };
}

await runCampaign("schc", async (campaign) => {
  const { random } = campaign;
  const links = campaign.count(12_000, 1_200);
  const any = newTally();
  for (let i = 0; i < links; i++) {
    run(random, randomTrouble(random), 5, new RealEnd(), any);
    campaign.progress(i, links, `${any.acknowledged} of ${any.sessions} acknowledged`);
  }
  const tenth = newTally();
  run(random, tenthLost, campaign.count(5_000, 1_000), new RealEnd(), tenth);
  const lossless = newTally();
  run(random, quiet, 500, new RealEnd(), lossless);
  const attack = hostile(campaign, campaign.count(1_000_000, 100_000));

  const careless = newTally();
  const complete = (window: number) => encodeAnswer({ kind: "ack", window, complete: true });
  for (let i = 0; i < 100; i++)
    run(random, { ...tenthLost, lossUp: 20 }, 5, new CarelessEnd(decodeFragment, complete), careless);

  return {
    figures: {
      sessions: any.sessions,
      frames: any.frames,
      acknowledged: any.acknowledged,
      unacknowledged: any.unacknowledged,
      otherwise: any.otherwise,
      wrongPackets: any.wrongPackets,
      falselyAcknowledged: any.falselyAcknowledged,
      staleAcknowledged: any.staleAcknowledged,
      tenthLostSessions: tenth.sessions,
      tenthLostAcknowledged: tenth.acknowledged,
      losslessAcknowledged: lossless.acknowledged,
      hostileTilesMost: attack.tilesMost,
      hostileSlowestMs: Math.round(attack.slowestMs * 10) / 10,
    },
    control: { wrongPackets: careless.wrongPackets },
    holds:
      any.wrongPackets + any.falselyAcknowledged + tenth.wrongPackets + tenth.falselyAcknowledged === 0 &&
      tenth.acknowledged >= 0.99 * tenth.sessions &&
      lossless.acknowledged === lossless.sessions &&
      attack.tilesMost <= 252 &&
      careless.wrongPackets > 0,
  };
});
