/**
 * Slaves on a pty that answer each request with one that can be checked, and spoil some of the answers. A unit answers in order, as
 * one UART does; frames of two units never mix on the wire, since what that gives is garbled at best.
 */
import { encodeRtuFrame, RtuParser, requestLength } from "../drivers/modbus/rtu-frame.ts";
import { openPty, type Pty } from "../simulator/pty.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";

export const faultKinds = ["late", "lost", "cut", "garbled", "duplicated", "wrong unit", "noise"] as const;
type FaultKind = (typeof faultKinds)[number];

export const busUnits = [1, 2, 3] as const;
/** Registers from here on read 0, whatever is asked: answers to several requests are the same. */
export const zeroFrom = 0x1000;
/** From here on they are refused. */
export const refusedFrom = 0x2000;

const faultyOfHundred = 25;
/** Beyond the line's rest, and within what a gateway with a queue may take. */
const latestMs = 1_500;
/** A unit that begins later than this after the request is behind. */
const promptMs = 20;
/** A second copy of an answer comes up to so much after the first. */
const copyLatestMs = 500;
/** Where this process was held up, one that would come later still is not sent: the line holds out for 1500 ms. */
const copyTooLateMs = 600;

/** As long as a line takes frames for copies, and the time of an exchange. */
const repeatAgeMaxMs = 2_000;

export class FaultyBus {
  readonly faults: Record<FaultKind, number>;
  readonly #random: SeededRandom;
  readonly #pty: Pty;
  readonly #parser = new RtuParser(requestLength);
  /** Requests that a unit has received: the number in the answer. */
  readonly #received = new Map<number, number>();
  /** By unit, function, address and count: the last request for it that was answered twice. */
  readonly #doubled = new Map<string, { number: number; atMs: number }>();
  readonly #tails = new Map<number, Promise<void>>();
  #wire: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(random: SeededRandom) {
    this.#random = random;
    this.faults = Object.fromEntries(faultKinds.map((kind) => [kind, 0])) as Record<FaultKind, number>;
    this.#pty = openPty();
    this.#pty.onData((bytes) => {
      for (const request of this.#parser.push(bytes)) this.#take(request);
    });
  }

  get path(): string {
    return this.#pty.path;
  }

  /** Whether these words are the answer to the last request that this unit received. */
  isTrue(unit: number, functionCode: number, address: number, words: readonly number[]): boolean {
    const expected = wordsOf(unit, functionCode, address, words.length, this.#received.get(unit) ?? 0);
    return words.length > 0 && words.every((word, i) => word === expected[i]);
  }

  /**
   * Whether these words are an answer, sent twice a moment ago, to a request for the very same registers. A copy
   * cannot be told from a register that has not changed: no receiver can, and the value was true that moment.
   */
  isRepeat(unit: number, functionCode: number, address: number, words: readonly number[]): boolean {
    const doubled = this.#doubled.get([unit, functionCode, address, words.length].join());
    if (doubled === undefined || performance.now() - doubled.atMs > repeatAgeMaxMs) return false;
    return wordsOf(unit, functionCode, address, words.length, doubled.number).every((word, i) => word === words[i]);
  }

  /** Requests that a unit has received so far. */
  received(unit: number): number {
    return this.#received.get(unit) ?? 0;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#pty.close();
  }

  #take(request: Uint8Array): void {
    const unit = request[0]!;
    if (!busUnits.some((known) => known === unit)) return;
    const number = (this.#received.get(unit) ?? 0) + 1;
    this.#received.set(unit, number);
    // Drawn now, so that the order of the draws is that of the requests.
    const kind = this.#random.chance(faultyOfHundred) ? this.#random.pick(faultKinds) : undefined;
    const answer = new Answer(request, number, kind, this.#random);
    if (kind === "duplicated") {
      const key = [unit, request[1]!, (request[2]! << 8) | request[3]!, (request[4]! << 8) | request[5]!].join();
      this.#doubled.set(key, { number, atMs: performance.now() });
    }
    const receivedAtMs = performance.now();
    const before = this.#tails.get(unit) ?? Promise.resolve();
    this.#tails.set(
      unit,
      before.then(async () => {
        // Behind an answer that is late this one is late too. In another unit's name as well, no receiver on earth could tell.
        const isBehind = performance.now() - receivedAtMs > promptMs;
        const isSpoilt = kind !== undefined && !(kind === "wrong unit" && isBehind);
        if (isSpoilt) this.faults[kind]++;
        let firstAtMs: number | undefined;
        for (const { afterMs, bytes } of isSpoilt ? answer.parts : answer.whole) {
          await pause(afterMs);
          const isCopy = kind === "duplicated" && firstAtMs !== undefined;
          if (isCopy && performance.now() - firstAtMs! > copyTooLateMs) continue;
          await this.#put(bytes);
          firstAtMs ??= performance.now();
        }
      }),
    );
  }

  /** One frame at a time, some in pieces as an adapter gives them. */
  #put(bytes: Uint8Array): Promise<void> {
    this.#wire = this.#wire.then(async () => {
      const cut = bytes.length % 4 === 1 ? bytes.length >> 1 : bytes.length;
      if (!this.#closed) this.#pty.write(bytes.subarray(0, cut));
      if (cut === bytes.length) return;
      await pause(2);
      if (!this.#closed) this.#pty.write(bytes.subarray(cut));
    });
    return this.#wire;
  }
}

/** What a unit sends for one request, and when. */
class Answer {
  /** With its fault, and without. */
  readonly parts: { afterMs: number; bytes: Uint8Array }[];
  readonly whole: readonly { afterMs: number; bytes: Uint8Array }[];

  constructor(request: Uint8Array, number: number, kind: FaultKind | undefined, random: SeededRandom) {
    const unit = request[0]!;
    const pdu = pduOf(request, number);
    const bytes = encodeRtuFrame(unit, pdu);
    const afterMs = random.integer(1, 8);
    this.whole = [{ afterMs, bytes }];
    this.parts = [...this.whole];
    if (kind === "late") this.parts = [{ afterMs: random.integer(40, random.chance(50) ? 300 : latestMs), bytes }];
    else if (kind === "lost") this.parts = [];
    else if (kind === "cut") this.parts = [{ afterMs, bytes: bytes.slice(0, random.integer(1, bytes.length - 1)) }];
    else if (kind === "garbled") this.parts = [{ afterMs, bytes: garbled(bytes, random) }];
    else if (kind === "duplicated")
      this.parts.push({ afterMs: random.chance(50) ? 0 : random.integer(1, copyLatestMs), bytes });
    else if (kind === "wrong unit") this.parts = [{ afterMs, bytes: encodeRtuFrame(1 + (unit % 3), pdu) }];
    else if (kind === "noise") {
      const noise = random.bytes(random.integer(1, 40));
      if (random.chance(50)) this.parts.unshift({ afterMs: 0, bytes: noise });
      else this.parts.push({ afterMs: random.integer(0, 20), bytes: noise });
    }
  }
}

/** One burst of at most 16 bits: the kind of damage that the CRC finds for certain. Of others one in 65,536 passes at every receiver. */
function garbled(frame: Uint8Array, random: SeededRandom): Uint8Array {
  const bytes = frame.slice();
  const burst = random.integer(1, 0xffff);
  const at = random.integer(0, bytes.length - 2);
  bytes[at]! ^= burst >>> 8;
  bytes[at + 1]! ^= burst & 0xff;
  return bytes;
}

function pduOf(request: Uint8Array, number: number): Uint8Array {
  const [unit, functionCode] = [request[0]!, request[1]!];
  const address = (request[2]! << 8) | request[3]!;
  const count = (request[4]! << 8) | request[5]!;
  if (address >= refusedFrom) return Uint8Array.of(functionCode | 0x80, 2);
  const words = wordsOf(unit, functionCode, address, count, number);
  return Uint8Array.from([functionCode, 2 * count, ...words.flatMap((word) => [word >>> 8, word & 0xff])]);
}

/** Every other word tells where it stands, those between them which request they answer. */
function wordsOf(unit: number, functionCode: number, address: number, count: number, number: number): number[] {
  return Array.from({ length: count }, (_, i) => {
    if (address >= zeroFrom) return 0;
    return i % 2 === 1 ? number & 0xffff : (Math.imul(unit * 8 + functionCode, 0x9e37) + (address + i) * 7) & 0xffff;
  });
}

function pause(durationMs: number): Promise<void> {
  return durationMs === 0 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, durationMs));
}
