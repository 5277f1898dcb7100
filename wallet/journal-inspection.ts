/**
 * Reading a whole journal without changing it, for the journal's tools: every block, the chain of commits, every record's form,
 * chain and signature. May run beside a wallet that writes: what changes while it is read shows as a finding, and is gone at a
 * second look.
 */
import { digestOf, verifyCose } from "../protocol/cose-sign1.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { kidOf } from "../protocol/public-key.ts";
import { type DecodedRecord, decodeRecord, eventCodes, previousBytes } from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import { rotationIn } from "../protocol/rotation.ts";
import { blockBytes, isBlank, readBlockHeader } from "./journal-block.ts";
import { type CommitBody, decodeBody } from "./journal-body.ts";
import { walkSpan } from "./journal-recovery.ts";
import type { JournalDisk } from "./journal-ring.ts";
import { findSpans, type SegmentSpan, sha256 } from "./journal-segments.ts";
import type { Commit } from "./journal-walk.ts";
import { verifyEd25519 } from "./verification.ts";

/** A record as its commit has it; it is not taken apart yet. */
export interface HeldRecord {
  readonly epoch: number;
  readonly sequence: number;
  readonly bytes: Uint8Array;
}

export interface JournalContent {
  readonly commit: Commit;
  readonly body: CommitBody;
  readonly records: readonly HeldRecord[];
  /** A commit is missing before this one. */
  readonly isBehindHole: boolean;
}

/** Whose records a journal should hold: the key of the device's name, and those that rotations made of it. */
export interface JournalKeys {
  readonly nameKey: Uint8Array;
  readonly publicKeys: readonly Uint8Array[];
}

/** Something that is not as it should be; the text says what and where. */
type Report = (finding: string) => void;

/** All commits of the ring that are whole, oldest first, a segment in memory at a time. */
export function* contentOf(ring: JournalDisk, report: Report = () => undefined): Generator<JournalContent> {
  const spans = findSpans(ring);
  for (let segment = 0; segment < ring.segments; segment++)
    if (!spans.some((span) => span.segment === segment) && !isUnused(ring.read(segment)))
      report(`segment ${segment}: holds neither a whole commit nor the zeros that it was made of`);
  let before: Commit | undefined;
  for (const [index, span] of spans.entries()) {
    const { commits, holes, spoiltBlocks, nextBlock } = walkSpan(ring, span, before);
    if (commits[0]?.header.commitNumber !== span.firstCommit) {
      report(`segment ${span.segment}: was overwritten while it was read`);
      before = undefined;
      continue;
    }
    for (const { firstBlock, lastBlock, firstCommit, lastCommit, missing } of holes) {
      const sequences = missing ? `, with sequences ${missing.first}-${missing.last} of epoch ${missing.epoch}` : "";
      report(
        `segment ${span.segment}, blocks ${firstBlock}-${lastBlock}: commits ${firstCommit}-${lastCommit} are missing${sequences}`,
      );
    }
    if (index === spans.length - 1 && spoiltBlocks > 0)
      report(
        `segment ${span.segment}, blocks ${nextBlock - spoiltBlocks}-${nextBlock - 1}: the tail is spoilt; the next start voids what it may have held`,
      );
    const behindHoles = new Set(holes.map(({ lastCommit }) => lastCommit + 1));
    for (const commit of commits) {
      const body = bodyOf(commit, span, report);
      if (body === undefined) continue;
      const { epoch, firstSequence, commitNumber } = commit.header;
      const records = body.records.map((bytes, i) => ({ epoch, sequence: firstSequence + i, bytes }));
      yield { commit, body, records, isBehindHole: behindHoles.has(commitNumber) };
    }
    before = commits.at(-1);
  }
}

function isUnused(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at += blockBytes) {
    const block = bytes.subarray(at, at + blockBytes);
    if (!isBlank(block) && readBlockHeader(block)?.generation !== 0) return false;
  }
  return true;
}

function bodyOf({ header, body }: Commit, { segment }: SegmentSpan, report: Report): CommitBody | undefined {
  try {
    return decodeBody(body);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    report(
      `segment ${segment}, block ${header.block}: commit ${header.commitNumber} is not understood: ${error.message}`,
    );
    return undefined;
  }
}

/** Checks everything that can be checked without the wallet's passphrase. Gives what was read, and reports what is wrong. */
export function checkJournal(
  ring: JournalDisk,
  keys: JournalKeys,
  report: Report,
): { commits: number; records: number } {
  const chain = new ChainCheck(keys);
  let commits = 0;
  let records = 0;
  for (const { commit, body, records: held, isBehindHole } of contentOf(ring, report)) {
    commits++;
    const { segment, block } = commit.header;
    const where = `segment ${segment}, block ${block}`;
    if (isBehindHole) chain.forget();
    if (body.state) for (const finding of chain.compare(body.state.lastDigest)) report(`${where}: ${finding}`);
    for (const record of held) {
      records++;
      for (const finding of chain.add(record))
        report(`${where}: record ${record.sequence} of epoch ${record.epoch}: ${finding}`);
    }
    if (held.length !== commit.header.records)
      report(`${where}: ${held.length} records, ${commit.header.records} named`);
  }
  return { commits, records };
}

/** The chain of records: form, sequence, link and signature of each. */
class ChainCheck {
  readonly #device: Uint8Array;
  #keys: readonly Uint8Array[];
  #last: { epoch: number; sequence: number; digest: Uint8Array } | undefined;
  /** Digest that the record before must have, where that record is not there. */
  #digest: Uint8Array | undefined;

  constructor({ nameKey, publicKeys }: JournalKeys) {
    this.#device = kidOf(nameKey, sha256);
    this.#keys = publicKeys;
  }

  /** What comes next does not follow what came before. */
  forget(): void {
    this.#last = undefined;
    this.#digest = undefined;
  }

  *compare(digest: Uint8Array): Generator<string> {
    if (this.#last && !equalBytes(this.#last.digest, digest))
      yield "the state names another record as the newest one than the one before it";
    this.#digest ??= digest;
  }

  *add({ epoch, sequence, bytes }: HeldRecord): Generator<string> {
    let record: DecodedRecord;
    try {
      record = decodeRecord(bytes, sha256);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      yield error.message;
      this.forget();
      return;
    }
    const { content } = record;
    if (content.epoch !== epoch || content.sequence !== sequence)
      yield `says that it is ${content.sequence} of epoch ${content.epoch}`;
    const digest = this.#last?.digest ?? this.#digest;
    if (digest && !equalBytes(content.previous, digest.slice(0, previousBytes)))
      yield "does not name the record before it";
    const expected = this.#last?.epoch === epoch ? this.#last.sequence + 1 : 1;
    const isVoided =
      content.kind === "event" &&
      content.events.some(
        ([code, first, last]) => code === eventCodes.void && first === expected && last === sequence - 1,
      );
    if (this.#last && sequence !== expected && !isVoided) yield `sequence ${expected} was expected`;
    yield* this.#checkSignature(record);
    this.#last = { epoch, sequence, digest: digestOf(record.cose, sha256) };
  }

  /** By the key of its time: from the first record on one of the device's keys, and from a rotation on the next one. */
  *#checkSignature(record: DecodedRecord): Generator<string> {
    const signer = this.#keys.findIndex((key) => {
      try {
        verifyCose(record.cose, key, verifyEd25519);
        return true;
      } catch (error) {
        if (error instanceof Refusal) return false;
        throw error;
      }
    });
    if (signer < 0) {
      yield "its signature is not by this device's key";
      return;
    }
    this.#keys = this.#keys.slice(signer);
    try {
      const rotation = rotationIn(record, this.#device, verifyEd25519);
      if (rotation)
        this.#keys = [rotation.publicKey, ...this.#keys.slice(1).filter((key) => !equalBytes(key, rotation.publicKey))];
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      yield `its rotation does not hold: ${error.message}`;
    }
  }
}
