/**
 * The last commit cut and flipped at every byte, where it lies in the middle of a segment, at its end, and at the beginning of a segment
 * that was used before. All earlier commits must remain, the sequences of the spoilt one must be voided, none may come back with other bytes.
 * Control: a recovery that clears whatever is not whole, and goes on where the last whole commit ended.
 */
import { eventCodes } from "../protocol/record.ts";
import { checkChain, eventsIn, rowsFrom, segmentBlocks, startS, WalletFixture } from "../test/wallet/wallet-fixture.ts";
import { blockBytes } from "../wallet/journal-block.ts";
import { type Campaign, runCampaign } from "./campaign.ts";

interface Commit {
  readonly wallet: WalletFixture;
  readonly before: readonly Buffer[];
  readonly after: readonly Buffer[];
  readonly segment: number;
  readonly offset: number;
  readonly length: number;
  readonly records: ReadonlyMap<number, Uint8Array>;
  /** Sequences that the last commit brought. */
  readonly fresh: readonly number[];
  readonly nextS: number;
}

/** Seals until the last commit begins at a block of a segment of this generation. */
function commitAt(campaign: Campaign, block: number, generation: number): Commit {
  const wallet = new WalletFixture(
    { after: (ending) => campaign.after(ending as () => unknown) },
    { segments: 3, policy: { sealEveryS: 60 } },
  );
  for (let timeS = startS; ; timeS += 4) {
    const before = wallet.image();
    const old = wallet.records();
    wallet.seal(rowsFrom(timeS, 4));
    const after = wallet.image();
    for (const [segment, bytes] of after.entries()) {
      const was = before[segment] as Buffer;
      const offset = block * blockBytes;
      const own = bytes.subarray(offset, offset + blockBytes);
      if (own.equals(was.subarray(offset, offset + blockBytes))) continue;
      if (own.readUInt32BE(12) !== generation || own.readUInt16BE(6) !== 0) continue;
      const records = wallet.records();
      const fresh = [...records.keys()].filter((sequence) => !old.has(sequence));
      if (fresh.length === 0) continue; // a released position, in the reserve
      const length = own.readUInt16BE(32) * blockBytes;
      return { wallet, before, after, segment, offset, length, records, fresh, nextS: timeS + 4 };
    }
    wallet.release(Math.max(1, wallet.journal.nextSequence - 2));
  }
}

interface Verdict {
  readonly lost: number;
  readonly reused: number;
  readonly voids: number;
}

/** Starts on the spoilt commit, and seals on. */
function recover(commit: Commit, spoilt: Buffer): Verdict {
  const { wallet, after, segment, offset, records, fresh, nextS } = commit;
  const image = after.map((bytes) => Buffer.from(bytes));
  spoilt.copy(image[segment] as Buffer, offset);
  wallet.close();
  wallet.putImage(image);
  wallet.restart();
  wallet.seal(rowsFrom(nextS, 2));
  const there = wallet.records();
  checkChain(there, wallet.key.publicKey);
  const through = wallet.hello().through;
  let lost = 0;
  let reused = 0;
  for (const [sequence, bytes] of records) {
    const found = there.get(sequence);
    const isSame = found !== undefined && Buffer.from(bytes).equals(found);
    if (fresh.includes(sequence)) {
      if (found !== undefined && !isSame) reused++;
    } else if (!isSame && (found !== undefined || sequence > through)) lost++;
  }
  return { lost, reused, voids: eventsIn(there, eventCodes.void).length };
}

await runCampaign("torn", async (campaign) => {
  const { random } = campaign;
  const figures = { variations: 0, lostSeals: 0, reusedSequences: 0, notVoided: 0 };
  const control = { variations: 0, reusedSequences: 0 };
  const lastUsable = segmentBlocks - 2;
  for (const [block, generation] of [
    [5, 1],
    [5, 2],
    [lastUsable, 2],
    [0, 2],
  ] as const) {
    const commit = commitAt(campaign, block, generation);
    const { segment, offset, length } = commit;
    const whole = (commit.after[segment] as Buffer).subarray(offset, offset + length);
    const old = (commit.before[segment] as Buffer).subarray(offset, offset + length);
    const step = campaign.count(1, 61);
    for (let at = random.integer(0, step - 1); at < length; at += step) {
      const cut = Buffer.from(whole);
      old.copy(cut, at, at);
      const flipped = Buffer.from(whole);
      flipped[at] = (flipped[at] as number) ^ (1 << random.integer(0, 7));
      for (const spoilt of [cut, flipped]) {
        // Byte for byte what was there before cannot be told from a write that never came, nor what was meant from one that did.
        if (spoilt.equals(whole) || spoilt.equals(old)) continue;
        const { lost, reused, voids } = recover(commit, spoilt);
        figures.variations++;
        figures.lostSeals += lost;
        figures.reusedSequences += reused;
        if (voids === 0) figures.notVoided++;
        campaign.progress(at, length, `block ${block} of generation ${generation}`);
        if (at % 16 !== 0) continue;
        const cleared = recover(commit, Buffer.from(old));
        control.variations++;
        control.reusedSequences += cleared.reused;
      }
    }
  }
  const isSafe = figures.lostSeals + figures.reusedSequences + figures.notVoided === 0 && figures.variations > 0;
  return { figures, control, holds: isSafe && control.reusedSequences > 0 };
});
