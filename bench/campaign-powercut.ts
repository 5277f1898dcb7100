/**
 * Power cuts: a wallet seals on an ext4 whose disk records each write and flush; then the disks that a cut could have left are made,
 * mounted, and the wallet is started on them. No acknowledged seal may be lost, no sequence may come back with other bytes, and
 * the ring must open. Control: the same load on SQLite in its default mode, and on a log that is synced now and then.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { eventCodes, type Row } from "../protocol/record.ts";
import { checkChain, eventsIn, rowsFrom, startS, WalletFixture } from "../test/wallet/wallet-fixture.ts";
import type { Campaign } from "./campaign.ts";
import { runCampaign } from "./campaign.ts";
import { controlEngines } from "./powercut-control.ts";
import {
  type CutModel,
  cutModels,
  demandRootAnd,
  diskBytes,
  RecordedDisk,
  type Recording,
  run,
} from "./recorded-disk.ts";

const segments = 3;
const segmentBlocks = 32;

interface Sealed {
  readonly rows: readonly Row[];
  /** Sequences of the answer, and the records with their bytes. */
  readonly sequences: readonly number[];
}

interface Load {
  readonly sealed: readonly Sealed[];
  /** Every record that was ever made, by sequence, as the wallet gave it. */
  readonly records: ReadonlyMap<number, Uint8Array>;
  readonly recording: Recording;
}

/** Seals one row or ten at a time, releases now and then so that the ring goes round. */
async function load(campaign: Campaign, folder: string): Promise<Load> {
  const { random } = campaign;
  const disk = await RecordedDisk.make(campaign, folder);
  const wallet = new WalletFixture(
    { after: (ending) => campaign.after(ending as () => unknown) },
    fixtureOptions(disk.mount),
  );
  disk.record();
  const sealed: Sealed[] = [];
  const records = new Map<number, Uint8Array>();
  let timeS = startS;
  const seals = campaign.count(1_500, 400);
  for (let i = 0; i < seals; i++) {
    const rows = rowsFrom(timeS, random.chance(30) ? 10 : 1);
    timeS += rows.length;
    const sequences = wallet.seal(rows);
    sealed.push({ rows, sequences });
    disk.answered(sealed.length);
    const last = wallet.journal.nextSequence - 1;
    for (const [sequence, bytes] of wallet.journal.records(1, last, 1 << 24))
      if (!records.has(sequence)) records.set(sequence, bytes);
    if (random.chance(10)) wallet.release(Math.max(1, last - random.integer(0, 5)));
  }
  wallet.close();
  const recording = disk.stop();
  disk.close();
  return { sealed, records, recording };
}

function fixtureOptions(parent: string) {
  return { parent, segments, segmentBlocks, policy: { sealEveryS: 60 } };
}

interface Verdict {
  readonly lost: number;
  readonly reused: number;
  readonly voided: boolean;
}

/** Starts the wallet on what a cut has left, and compares with what was answered before it. */
function recover({ sealed, records }: Load, parent: string, answers: number, traces: readonly Buffer[]): Verdict {
  const endings: (() => unknown)[] = [];
  const wallet = new WalletFixture(
    { after: (ending) => endings.push(ending as () => unknown) },
    fixtureOptions(parent),
  );
  try {
    const there = wallet.records();
    checkChain(there, wallet.key.publicKey);
    const released = wallet.hello().through;
    let lost = 0;
    for (const { sequences } of sealed.slice(0, answers))
      for (const sequence of new Set(sequences)) {
        const found = there.get(sequence);
        const isSame = found !== undefined && Buffer.from(records.get(sequence) as Uint8Array).equals(found);
        if (!isSame && (found !== undefined || sequence > released)) lost++;
      }
    // What was under way: asked for again, and something new. A sequence that left a trace on the disk must not come back with other bytes.
    const next = sealed[answers];
    if (next) wallet.seal(next.rows);
    wallet.seal(rowsFrom(startS + 1_000_000, 1));
    let reused = 0;
    // Where a part of a record that was under way is on the disk, as it was meant to be or spoilt, it may have been read there.
    const isTraced = (original: Uint8Array): boolean =>
      traces.some(
        (bytes) =>
          bytes.includes(Buffer.from(original.subarray(-40))) || bytes.includes(Buffer.from(original.subarray(0, 40))),
      );
    const isAnswered = (sequence: number): boolean =>
      sealed.slice(0, answers).some(({ sequences }) => sequences.includes(sequence));
    for (const [sequence, bytes] of wallet.records()) {
      const original = records.get(sequence);
      const isOther = original !== undefined && !Buffer.from(original).equals(bytes);
      if (isOther && (isAnswered(sequence) || isTraced(original))) reused++;
    }
    return { lost, reused, voided: eventsIn(wallet.records(), eventCodes.void).length > 0 };
  } finally {
    for (const ending of endings.reverse()) ending();
  }
}

await runCampaign("powercut", async (campaign) => {
  demandRootAnd("nbdkit", "nbdfuse", "losetup", "mkfs.ext4");
  const folder = mkdtempSync(path.join(tmpdir(), "ecp-powercut-"));
  campaign.after(() => rmSync(folder, { recursive: true, force: true }));
  const points = campaign.count(2_000, 100);
  const wallet = await load(campaign, path.join(folder, "wallet"));
  campaign.say(
    `${wallet.sealed.length} seals, ${wallet.recording.length} writes and flushes, ${wallet.recording.flushes} flushes`,
  );
  const figures = { points: 0, lostSeals: 0, reusedSequences: 0, unopened: 0, voids: 0, withTraces: 0 };
  await replay(campaign, wallet.recording, points, folder, wallet.sealed.length, (mount, answers, traces) => {
    figures.points++;
    if (traces.length > 0) figures.withTraces++;
    try {
      const { lost, reused, voided } = recover(wallet, mount, answers, traces);
      figures.lostSeals += lost;
      figures.reusedSequences += reused;
      if (voided) figures.voids++;
      if (lost + reused > 0) campaign.say(`after ${answers} answers: ${lost} lost, ${reused} reused`);
    } catch (error) {
      figures.unopened++;
      campaign.say(
        `after ${answers} answers the ring did not open, or its chain is broken: ${(error as Error).message}`,
      );
    }
  });
  const control: Record<string, number> = {};
  for (const engine of controlEngines) {
    const disk = await RecordedDisk.make(campaign, path.join(folder, engine.name));
    const writer = engine.open(disk.mount);
    disk.record();
    const rows = campaign.count(600, 200);
    for (let i = 1; i <= rows; i++) {
      writer.write(i);
      disk.answered(i);
    }
    writer.close();
    const recording = disk.stop();
    disk.close();
    const cuts = campaign.count(300, 60);
    const name = `${engine.name}CutsWithLoss`;
    control[name] = 0;
    control[`${engine.name}Cuts`] = cuts;
    await replay(campaign, recording, cuts, folder, rows, (mount, answers) => {
      if (engine.survivors(mount, answers) < answers) control[name] = (control[name] ?? 0) + 1;
    });
  }
  const isLost = controlEngines.every((engine) => (control[`${engine.name}CutsWithLoss`] ?? 0) > 0);
  const holds =
    figures.points === points &&
    figures.lostSeals + figures.reusedSequences + figures.unopened === 0 &&
    figures.voids > 0;
  return { figures, control, holds: holds && isLost };
});

/** Cuts at seeded places, each model in turn: mounts what is left, and calls `check`. */
async function replay(
  campaign: Campaign,
  recording: Recording,
  points: number,
  folder: string,
  answersAtEnd: number,
  check: (mount: string, answers: number, traces: readonly Buffer[]) => void,
): Promise<void> {
  const { random } = campaign;
  // Most cuts fall where something is under way: before a flush that follows a write.
  const busy = recording.busyPlaces;
  const places = Array.from({ length: points }, () =>
    random.chance(80) ? random.pick(busy) : random.integer(1, recording.length),
  ).sort((a, b) => a - b);
  const image = path.join(folder, "image");
  const mount = path.join(folder, "replayed");
  mkdirSync(mount, { recursive: true });
  for (const [index, at] of places.entries()) {
    const model = cutModels[index % cutModels.length] as CutModel;
    const cut = recording.cut(at, model, random, answersAtEnd);
    if (cut.image.length !== diskBytes) throw new Error("a disk of another size");
    writeFileSync(image, cut.image);
    run("mount", "-o", "loop", image, mount);
    try {
      check(mount, cut.answers, cut.traces);
    } finally {
      run("umount", mount);
    }
    campaign.progress(index + 1, points);
  }
}
