/** The wallet: answers the requests of wallet-message.ts, one at a time. Alone holds the key, the sequence and the journal. */
import { randomBytes } from "node:crypto";
import type { Clock } from "../platform/clock.ts";
import { decodeCose, digestOf } from "../protocol/cose-sign1.ts";
import type { CborMap } from "../protocol/deterministic-cbor.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { type EnrolmentRequest, signEnrolmentRequest } from "../protocol/enrolment.ts";
import { kidOf } from "../protocol/public-key.ts";
import { encodeReadAnswer } from "../protocol/read-answer.ts";
import { epochReasons, eventCodes, type RecordEvent } from "../protocol/record.ts";
import { signStatement } from "../protocol/statement.ts";
import { helloFields, type WalletHello } from "../protocol/wallet-hello.ts";
import {
  decodeWalletRequest,
  encodeAnswer,
  encodeRefusal,
  enrolFields,
  type ReadAnswer,
  type ReadRequest,
  readBytesMax,
  readFields,
  releaseFields,
  type SealAnswer,
  sealFields,
  statementFields,
  WalletRefusal,
  type WalletRequest,
} from "../protocol/wallet-message.ts";
import { bareRecords } from "./bare-reading.ts";
import { timeOf } from "./clock-state.ts";
import type { Journal } from "./journal.ts";
import { epochsMax } from "./journal-epochs.ts";
import { sha256 } from "./journal-segments.ts";
import type { Hole } from "./journal-walk.ts";
import type { DeviceKey } from "./keystore.ts";
import { encodePolicy, type WalletPolicy } from "./policy.ts";
import { type RecordEncryption, recordEncryption } from "./record-encryption.ts";
import { type Contradiction, Releases } from "./release.ts";
import { Sealer } from "./sealing.ts";
import { unlessFull } from "./sealing-chain.ts";
import { statedPeriod } from "./sealing-statement.ts";

export interface Isolation {
  readonly permission: boolean;
  readonly jitless: boolean;
  readonly uid: number;
}

export interface WalletOptions {
  readonly journal: Journal;
  readonly policy: WalletPolicy;
  /** The key that signs now. Of a retired device only its public half: nothing is signed any more. */
  readonly key: DeviceKey;
  /** Where the key was rotated: the key of the device's name, and the records that lead from it to `key`. */
  readonly rotated?: NonNullable<EnrolmentRequest["rotated"]>;
  readonly keyProtection?: WalletHello["keyProtection"];
  readonly retired?: boolean;
  readonly clock: Clock;
  readonly softwareId: string;
  readonly isolation: Isolation;
  /** Names this boot of the machine, 16 bytes; absent where nobody said: then each start counts as a boot. */
  readonly bootId?: Uint8Array;
  /** Folder that the time daemons' marks lie under instead of "/". */
  readonly timeMarks?: string;
  /** Value of the TPM's counter that this start is to be sealed with. */
  readonly counter?: number;
}

/** Enrolment requests and statements a minute: each is sealed as an event before it leaves. */
const keyUsesMax = 6;
const keyUsesEveryMs = 60_000;
const usedDigestBytes = 16;
/** Epochs that receipts make the wallet begin: one in so long at most, whatever they say. */
const contradictionEveryMs = 600_000;

/** What an answer has for a record beside its bytes. */
const recordOverheadBytes = 16;

/** Holes that are remembered; more of them are a card that is done for. */
const missingMax = 64;

/** Requests that need the key. */
const signingRequests: ReadonlySet<WalletRequest["type"]> = new Set(["enrol", "seal", "statement"]);

export class Wallet {
  readonly #options: WalletOptions;
  readonly #kid: Uint8Array;
  /** kid of the device's name. */
  readonly #device: Uint8Array;
  readonly #policyDigest: Uint8Array;
  readonly #sealer: Sealer;
  readonly #releases: Releases;
  readonly #encryption: RecordEncryption;
  readonly #check: Generator<readonly Hole[]>;
  #holes = 0;
  /** Sequences whose records lie in a hole, and which no receipt has released. */
  #missing: readonly NonNullable<Hole["missing"]>[] = [];
  #contradictedMs: number | undefined;
  #keyUsesMs: readonly number[] = [];
  #ended = false;

  /** Seals at once what recovery and start ask for. */
  constructor(options: WalletOptions) {
    const { journal, policy, key, clock } = options;
    this.#options = options;
    this.#kid = kidOf(key.publicKey, sha256);
    this.#device = options.rotated ? kidOf(options.rotated.nameKey, sha256) : this.#kid;
    this.#policyDigest = sha256(encodePolicy(policy));
    this.#encryption = recordEncryption(key, policy);
    const { bootId = randomBytes(16), timeMarks } = options;
    const sealing = { journal, policy, key, kid: this.#kid, clock, bootId: new Uint8Array(bootId) };
    this.#sealer = new Sealer({ ...sealing, ...(timeMarks !== undefined && { timeMarks }) });
    const onContradiction = (contradiction: Contradiction): string => this.#contradicted(contradiction);
    this.#releases = new Releases({ journal, key, nodes: policy.nodes, device: this.#device, onContradiction });
    if (!options.retired) this.#sealer.begin(this.#startEvents());
    this.#check = journal.check();
  }

  #startEvents(): RecordEvent[] {
    const { journal, softwareId, counter } = this.#options;
    const digest = this.#policyDigest;
    const before = journal.lastStarted;
    const events: RecordEvent[] = [
      [eventCodes.started, softwareId, digest, ...(counter === undefined ? [] : [counter])],
    ];
    if (before && before.softwareId !== softwareId) events.push([eventCodes.updated, before.softwareId, softwareId]);
    if (before && !equalBytes(before.policyDigest, digest)) events.push([eventCodes.parametersChanged, digest]);
    return events;
  }

  /** To be called every few seconds. Writes nothing where there is nothing to seal. */
  tick(): void {
    if (this.#options.retired || this.#ended) return;
    this.#sealer.tick();
    this.#reportMissing();
  }

  /**
   * What lies in a hole never comes. It is sealed as dropped once all before it is released: then a full node's `through` can pass
   * it, and the ring behind it becomes free; sooner, it would let go of records that can still be delivered.
   */
  #reportMissing(): void {
    const { epochs } = this.#options.journal;
    const throughOf = (epoch: number): number =>
      epochs.find((other) => other.epoch === epoch)?.through ?? Number.POSITIVE_INFINITY;
    const open = this.#missing.filter(({ epoch, last }) => throughOf(epoch) < last);
    const due = open.filter(({ epoch, first }) => throughOf(epoch) >= first - 1);
    this.#missing = open.filter((range) => !due.includes(range));
    if (due.length > 0)
      this.#sealer.report(due.map(({ epoch, first, last }) => [eventCodes.dropped, epoch, first, last]));
  }

  /** Seals what the TPM's counter is raised to next; false where the ring is full. */
  sealCounter(value: number): boolean {
    return !this.#ended && unlessFull(() => this.#sealer.sealEvent([eventCodes.counterRaised, value]));
  }

  /** Seals that the wallet was told to stop; nothing is answered after that. */
  stop(): void {
    if (!this.#options.retired && !this.#ended) this.#sealer.stop();
    this.#ended = true;
  }

  /** One step of the check of the whole ring: what is missing is sealed as an event. Gives the holes; undefined at the end. */
  checkNext(): readonly Hole[] | undefined {
    if (this.#ended) return undefined;
    const { done, value: holes } = this.#check.next();
    if (done) return undefined;
    this.#holes += holes.length;
    if (this.#options.retired) return holes;
    this.#missing = [...this.#missing, ...holes.flatMap(({ missing }) => (missing ? [missing] : []))].slice(
      -missingMax,
    );
    this.#sealer.report(
      holes.map(({ segment, firstBlock, lastBlock, firstCommit, lastCommit }) => [
        eventCodes.storageError,
        `segment ${segment}, blocks ${firstBlock}-${lastBlock}: commits ${firstCommit}-${lastCommit} missing`,
      ]),
    );
    return holes;
  }

  /** The answer to one framed message. Never throws for what an agent sends; a failing disk does throw, and must end us. */
  answer(message: Uint8Array): Uint8Array {
    if (this.#ended) throw new Error("the wallet was stopped");
    const { id, request } = decodeWalletRequest(message);
    try {
      if (request instanceof WalletRefusal) throw request;
      if (request.type === "read" && request.bare) return encodeAnswer(id, readFields(this.#readBare(request)));
      if (request.type === "read") return encodeReadAnswer(id, { records: this.#read(request) });
      return encodeAnswer(id, this.#fields(request));
    } catch (error) {
      if (!(error instanceof WalletRefusal)) throw error;
      this.#sealer.refused();
      return encodeRefusal(id, error);
    }
  }

  #fields(request: Exclude<WalletRequest, { type: "read" }>): CborMap {
    if (this.#options.retired && signingRequests.has(request.type)) throw new WalletRefusal("key-retired");
    switch (request.type) {
      case "hello":
        return helloFields(this.hello());
      case "enrol":
        return enrolFields(this.#enrolmentRequest());
      case "seal":
        return sealFields(this.#seal(request));
      case "release":
        return releaseFields(this.#releases.release(request.receipt));
      case "statement":
        return statementFields(this.#statement(request));
    }
  }

  /** What was sealed just now goes with the answer: it need not be asked for again before it is sent. */
  #seal(request: WalletRequest & { type: "seal" }): SealAnswer {
    const { journal } = this.#options;
    const { epoch, nextSequence } = journal;
    const answer = this.#sealer.seal(request);
    if (this.#encryption.form === "withheld") return answer;
    const from = journal.epoch === epoch ? nextSequence : 1;
    const to = journal.nextSequence - 1;
    return from > to ? answer : { ...answer, records: this.#read({ type: "read", from, to }) };
  }

  /** As many as fit into one answer in the form in which they leave. */
  #read({ from, to, epoch }: ReadRequest): [number, Uint8Array][] {
    const { form, seal } = this.#encryption;
    if (form === "plain") return this.#options.journal.records(from, to, readBytesMax, epoch);
    const records: [number, Uint8Array][] = [];
    let bytes = 0;
    for (const [sequence, record] of this.#options.journal.records(from, to, readBytesMax, epoch)) {
      const encrypted = seal(record);
      bytes += encrypted.length + recordOverheadBytes;
      if (bytes > readBytesMax && records.length > 0) break;
      records.push([sequence, encrypted]);
    }
    return records;
  }

  #readBare({ from, to, epoch }: ReadRequest): ReadAnswer {
    const { journal, policy } = this.#options;
    return bareRecords(journal.records(from, to, readBytesMax, epoch), {
      ...{ journal, policy, isPlain: this.#encryption.form === "plain" },
    });
  }

  hello(): WalletHello {
    const { journal, policy, key, rotated, keyProtection, retired, softwareId, isolation } = this.#options;
    return {
      softwareId,
      publicKey: key.publicKey,
      epoch: journal.epoch,
      nextSequence: journal.nextSequence,
      through: journal.releasedThrough,
      policyDigest: this.#policyDigest,
      clockState: this.#sealer.clockState,
      generation: journal.generation,
      ...isolation,
      meters: policy.meters.map(({ index, slotS }) => ({ index, slotS, lastTimeS: this.#lastTimeS(index) })),
      sealEveryS: policy.sealEveryS,
      pinnedNodes: policy.nodes.length,
      segments: journal.segments,
      segmentsInUse: journal.segmentsInUse,
      pendingRows: journal.pendingRows.length,
      firstSequence: journal.firstSequence,
      nameKey: rotated?.nameKey ?? key.publicKey,
      earlierEpochs: journal.epochs
        .filter(({ epoch, through, last }) => epoch !== journal.epoch && through < last)
        .map(({ epoch, through, last }) => ({ epoch, through, last })),
      keyProtection: keyProtection ?? "passphrase",
      retired: retired ?? false,
      holes: this.#holes,
      recordForm: this.#encryption.form,
      plans: policy.plans,
    };
  }

  /**
   * End of the newest row of a meter's full plan, or of the first one listed where the full one was never sealed, in the running
   * generation; 0 where there is none.
   */
  #lastTimeS(meter: number): number {
    const { journal, policy } = this.#options;
    const thin = policy.plans.map(({ plan }) => journal.lastRow(meter, plan));
    const last = journal.lastRow(meter, 0) ?? thin.find((row) => row !== undefined);
    return last?.generation === journal.generation ? last.timeS : 0;
  }

  #enrolmentRequest(): Uint8Array {
    const { journal, policy, key, rotated, clock, softwareId } = this.#options;
    const meters = policy.meters.map(({ index, name, profile }) => ({ index, name, profile }));
    const timeS = timeOf(clock);
    const { publicKey, share } = key;
    const content = { publicKey, share, epoch: journal.epoch, timeS, softwareId, meters, ...(rotated && { rotated }) };
    return this.#keyUsed(() => signEnrolmentRequest(content, key.sign, sha256));
  }

  /** What the key signs besides records: that it did is on disk before the bytes leave. */
  #keyUsed(sign: () => Uint8Array): Uint8Array {
    const nowMs = this.#options.clock.monotonicMs();
    const recent = this.#keyUsesMs.filter((usedMs) => nowMs - usedMs < keyUsesEveryMs);
    if (recent.length >= keyUsesMax)
      throw new WalletRefusal("rate-exceeded", `${keyUsesMax} enrolment requests and statements a minute`);
    const bytes = sign();
    const cose = decodeCose(bytes);
    this.#sealer.sealEvent([eventCodes.keyUsed, cose.contentType, digestOf(cose, sha256).slice(0, usedDigestBytes)]);
    this.#keyUsesMs = [...recent, nowMs];
    return bytes;
  }

  /** A receipt shows that this card is older than what the node has, or has a twin: what comes now is an epoch of its own. */
  #contradicted({ epoch, sequence, digest }: Contradiction): string {
    const { journal, clock, retired } = this.#options;
    const nowMs = clock.monotonicMs();
    const recently = this.#contradictedMs !== undefined && nowMs - this.#contradictedMs < contradictionEveryMs;
    if (retired) return "";
    if (recently) return "; no new epoch begins within ten minutes of another";
    if (!journal.canBeginEpoch)
      return `; no new epoch begins, since the journal has records of ${epochsMax}: it goes on in this one until the oldest are released and overwritten`;
    const event = [eventCodes.epochBegun, epochReasons.contradicted, epoch, sequence, digest] as const;
    if (!this.#sealer.beginEpoch(event)) return "; no new epoch begins while the journal is full";
    this.#contradictedMs = nowMs;
    return "; a new epoch begins";
  }

  #statement({ meter: index, fromS, toS }: WalletRequest & { type: "statement" }): Uint8Array {
    const { journal, policy, key, clock } = this.#options;
    const meter = policy.meters.find((item) => item.index === index);
    if (!meter) throw new WalletRefusal("unknown-meter", `${index}`);
    const plans = [{ plan: 0, slotS: meter.slotS }, ...policy.plans];
    const period = statedPeriod(journal, { index, plans }, { fromS, toS }, () => this.#sealer.closePending());
    const made = { device: this.#device, timeS: timeOf(clock), clockState: this.#sealer.clockState };
    return this.#keyUsed(() => signStatement({ ...period, ...made }, key.sign, this.#kid));
  }
}
