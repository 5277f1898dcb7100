/** A wallet's process over a disk in memory: the real wallet and journal, which end where the disk says and start again. */

import { kidOf, multibaseOf } from "../../protocol/public-key.ts";
import { decodeRecord } from "../../protocol/record.ts";
import { readHello, type WalletHello } from "../../protocol/wallet-hello.ts";
import { decodeAnswer, encodeWalletRequest, WalletRefusal, type WalletRequest } from "../../protocol/wallet-message.ts";
import { nodeKey } from "../../test/vectors/signature-suite.ts";
import { Journal } from "../../wallet/journal.ts";
import { writeFirstCommit } from "../../wallet/journal-creation.ts";
import { sha256 } from "../../wallet/journal-segments.ts";
import { type DeviceKey, deviceKeyOf } from "../../wallet/keystore.ts";
import type { PinnedNode, WalletPolicy } from "../../wallet/policy.ts";
import { Wallet } from "../../wallet/wallet.ts";
import { MemoryDisk, PowerCut } from "./memory-disk.ts";
import type { SealedTruth } from "./sealed-truth.ts";
import type { VirtualWorld } from "./virtual-world.ts";

export const segmentBlocks = 16;
const startTriesMax = 20;

/** Nobody answers: the process is away. */
export class WalletAway extends Error {}

export class SimulatedWallet {
  readonly key: DeviceKey;
  readonly #world: VirtualWorld;
  readonly #truth: SealedTruth;
  #policy: WalletPolicy;
  readonly #disk: MemoryDisk;
  /** What a restart does that sees no reason for doubt: for a control. */
  readonly #believesTail: boolean;
  #journal: Journal | undefined;
  #wallet: Wallet | undefined;
  #bootedMs = 0;
  #bootId: Uint8Array = new Uint8Array(16);
  /** Sequences of each epoch that were looked at. */
  readonly #seenThrough = new Map<number, number>();
  readonly counts = { starts: 0, crashes: 0, spoilt: 0 };

  constructor(
    world: VirtualWorld,
    truth: SealedTruth,
    policy: WalletPolicy,
    { segments, believesTail }: { segments: number; believesTail: boolean },
  ) {
    this.#world = world;
    this.#truth = truth;
    this.#policy = policy;
    this.#believesTail = believesTail;
    const seed = world.random.bytes(32);
    // node:crypto signs the same bytes fifteen times faster; that the wallet's own signer does is tested by itself.
    this.key = { ...deviceKeyOf(seed), sign: nodeKey(seed).sign };
    this.#disk = new MemoryDisk(world.random, segments, segmentBlocks);
    writeFirstCommit(this.#disk, world.random.integer(1, 0xffff_fffe));
  }

  get name(): string {
    return multibaseOf(this.key.publicKey);
  }
  get kid(): Uint8Array {
    return kidOf(this.key.publicKey, sha256);
  }
  get isRunning(): boolean {
    return this.#wallet !== undefined;
  }
  /** Counts the writes of the disk. */
  get writes(): number {
    return this.#disk.writes;
  }
  get readerJournal(): Journal {
    if (this.#journal === undefined) throw new WalletAway();
    return this.#journal;
  }

  /** Takes effect at the next start. */
  pin(node: PinnedNode): void {
    this.#policy = { ...this.#policy, nodes: [...this.#policy.nodes, node] };
  }

  /** Starts the process; it may end again at once. */
  start(): void {
    for (let tries = 0; this.#wallet === undefined && tries < startTriesMax; tries++) this.#tryStart();
  }

  #tryStart(): void {
    try {
      const { key } = this;
      const journal = new Journal(this.#disk);
      this.#journal = journal;
      // What is sealed from here on is new, whatever its sequence.
      for (const { epoch, last } of journal.epochs)
        this.#seenThrough.set(epoch, Math.min(last, this.#seenThrough.get(epoch) ?? 0));
      const clock = { wallMs: () => this.#world.wallMs, monotonicMs: () => this.#world.nowMs - this.#bootedMs };
      const isolation = { permission: true, jitless: true, uid: 1_000 };
      const options = { journal, policy: this.#policy, key, clock, isolation, bootId: this.#bootId };
      this.#wallet = new Wallet({ ...options, softwareId: "ecp-wallet/simulation", timeMarks: "/nonexistent" });
      while (this.#wallet.checkNext() !== undefined);
      this.counts.starts++;
      this.#look();
      this.#world.note("wallet started", journal.epoch, journal.nextSequence, journal.lost ? "void" : "");
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error;
      this.#end();
    }
  }

  /** The process ends without a word, now or in the middle of its next write. */
  crash(inNextWrite: boolean): void {
    if (inNextWrite) this.#disk.cutNext();
    else this.#end();
  }

  /** The machine loses its power: the next boot has another id, its clock begins anew, and the last block may be noise. */
  cutPower(spoils: boolean): void {
    const { writes } = this;
    this.#end();
    this.#bootedMs = this.#world.nowMs;
    this.#bootId = this.#world.random.bytes(16);
    if (spoils && this.#disk.spoilLast()) {
      this.#truth.spoilt(writes);
      this.counts.spoilt++;
      this.#world.note("last write spoilt", writes);
      if (this.#believesTail) this.#disk.forgetLast();
    }
  }

  #end(): void {
    if (this.#wallet === undefined && this.#journal === undefined) return;
    this.counts.crashes++;
    this.#wallet = undefined;
    this.#journal = undefined;
    this.#world.note("wallet ended", this.#disk.writes);
  }

  /** Sends a request as the agent does. Throws {@link WalletRefusal}, or {@link WalletAway} where the process ended over it. */
  ask<T>(request: WalletRequest, read: (fields: Parameters<typeof readHello>[0]) => T): T {
    const wallet = this.#wallet;
    if (wallet === undefined) throw new WalletAway();
    const fields = this.#guarded(() => decodeAnswer(wallet.answer(encodeWalletRequest(1, request))).fields);
    this.#look();
    if (fields instanceof WalletRefusal) throw fields;
    return read(fields);
  }

  hello(): WalletHello {
    return this.ask({ type: "hello" }, readHello);
  }

  /** What a running process does every few seconds. */
  tick(): void {
    const wallet = this.#wallet;
    if (wallet === undefined) return;
    try {
      this.#guarded(() => wallet.tick());
      this.#look();
    } catch (error) {
      if (!(error instanceof WalletAway)) throw error;
    }
  }

  #guarded<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error;
      this.#end();
      throw new WalletAway();
    }
  }

  /** Looks at the records that have become durable since the last look. */
  #look(): void {
    const journal = this.readerJournal;
    for (const { epoch, first, last } of journal.epochs) {
      const seen = this.#seenThrough.get(epoch) ?? 0;
      if (last <= seen) continue;
      for (const [, bytes] of journal.records(Math.max(first, seen + 1), last, Number.POSITIVE_INFINITY, epoch))
        this.#truth.seen(decodeRecord(bytes, sha256), this.#disk.writes);
      this.#seenThrough.set(epoch, last);
    }
  }
}
