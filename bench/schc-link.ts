/**
 * A Class A link between the two ends of SCHC sessions on one FPort, in virtual time: losses by a Gilbert-Elliott channel, doubled and
 * delayed uplinks, answers in the same receive window or in the next, data rates that change, restarts of both ends from their state.
 */
import { SchcSender, type SenderOutcome } from "../agent/schc-sender.ts";
import { type ReceiverAction, SchcReceiver } from "../fullnode/schc-receiver.ts";
import type { Fragment } from "../protocol/schc.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";

/** Chances of a hundred. */
export interface LinkTrouble {
  readonly lossUp: number;
  readonly lossDown: number;
  /** Losses of the channel in its bad state, and how it changes state with each frame. */
  readonly lossBad: number;
  readonly toBad: number;
  readonly toGood: number;
  readonly doubled: number;
  readonly delayed: number;
  /** An answer leaves with the next uplink only. */
  readonly lateAnswer: number;
  readonly dataRateChange: number;
  readonly fOpts: number;
  readonly restart: number;
  /** Answers and delayed frames of one packet are still under way when the next one begins on the port, with no time in between. */
  readonly isHasty: boolean;
  /** The node ends between what the receiver hands over and what is stored. */
  readonly nodeCrash: number;
}

/** What the link needs of the full node's end: the real one, or one that is careless. */
export interface ReceivingEnd {
  receive(bytes: Uint8Array, fCnt: number, nowMs: number, devAddr: string): ReceiverAction[];
  stored(nowMs: number, packet?: Uint8Array): ReceiverAction[];
  expire(nowMs: number): ReceiverAction[];
  restart?(nowMs: number): ReceivingEnd;
}

export class RealEnd implements ReceivingEnd {
  readonly receiver: SchcReceiver;

  constructor(receiver: SchcReceiver = new SchcReceiver()) {
    this.receiver = receiver;
  }

  receive(bytes: Uint8Array, fCnt: number, nowMs: number, devAddr: string): ReceiverAction[] {
    return this.receiver.receive(bytes, fCnt, nowMs, devAddr);
  }

  stored(nowMs: number, packet?: Uint8Array): ReceiverAction[] {
    return this.receiver.stored(nowMs, packet);
  }

  expire(nowMs: number): ReceiverAction[] {
    return this.receiver.expire(nowMs);
  }

  restart(nowMs: number): RealEnd {
    return new RealEnd(SchcReceiver.restore(structuredClone(this.receiver.state(nowMs)), nowMs));
  }
}

const frameSizes = [11, 51, 53, 115, 125, 222, 242];
const frameMs = 2_000;
const devAddr = "26010203";

export interface SessionResult {
  readonly outcome: SenderOutcome;
  readonly frames: number;
  readonly bytesSent: number;
}

export class SchcLink {
  readonly #random: SeededRandom;
  readonly #trouble: LinkTrouble;
  /** What the node stored, in hex. */
  readonly stored: Set<string> = new Set();
  /** What the receiver handed over that nobody had sent. */
  wrongPackets = 0;
  readonly #sent: Set<string> = new Set();
  #end: ReceivingEnd;
  #nowMs = 0;
  #fCnt = 0;
  #isBad = false;
  #bytesMax: number;
  /** One downlink waits, a newer one takes its place. */
  #down: Uint8Array | undefined;
  #delayed: { readonly bytes: Uint8Array; readonly fCnt: number; readonly after: number }[] = [];

  constructor(random: SeededRandom, trouble: LinkTrouble, end: ReceivingEnd) {
    this.#random = random;
    this.#trouble = trouble;
    this.#end = end;
    this.#bytesMax = random.pick(frameSizes);
  }

  /** Sends one packet to its outcome. */
  send(packet: Uint8Array): SessionResult {
    this.#sent.add(hexOf(packet));
    if (!this.#trouble.isHasty) {
      this.#down = undefined;
      this.#delayed = [];
    }
    let sender = SchcSender.begin(20, packet);
    let frames = 0;
    let bytesSent = 0;
    const trouble = this.#trouble;
    while (sender.outcome === undefined) {
      if (this.#random.chance(trouble.dataRateChange)) this.#bytesMax = this.#random.pick(frameSizes);
      const fOpts = this.#random.chance(trouble.fOpts) ? this.#random.integer(1, 15) : 0;
      const frame = sender.next(Math.max(0, this.#bytesMax - fOpts), this.#nowMs);
      if (frame === undefined) {
        this.#nowMs = sender.wakesAtMs(this.#nowMs) ?? this.#nowMs;
        this.#act(this.#end.expire(this.#nowMs));
        continue;
      }
      // Of "no-room" an empty frame comes, which fetches what waits.
      const bytes = frame === "no-room" ? new Uint8Array() : frame.bytes;
      if (++frames > 40_000) throw new Error(`no outcome after ${frames} frames`);
      bytesSent += bytes.length;
      this.#nowMs += frameMs;
      const restartsBefore = this.#random.chance(trouble.restart);
      if (restartsBefore) sender = this.#restarted(sender); // what was on its way goes once more
      for (const answer of this.#uplink(bytes)) sender.received(answer, this.#nowMs);
      if (frame !== "no-room" && !restartsBefore) sender.sent(frame, this.#nowMs);
      if (this.#random.chance(trouble.restart)) sender = this.#restarted(sender);
      if (this.#random.chance(trouble.restart)) this.#end = this.#end.restart?.(this.#nowMs) ?? this.#end;
    }
    return { outcome: sender.outcome, frames, bytesSent };
  }

  #restarted(sender: SchcSender): SchcSender {
    return SchcSender.restore(structuredClone(sender.state(this.#nowMs)), this.#nowMs);
  }

  /** What comes down in the windows of one uplink. */
  #uplink(bytes: Uint8Array): Uint8Array[] {
    const { lossUp, lossDown, lossBad, toBad, toGood, doubled, delayed, lateAnswer } = this.#trouble;
    const random = this.#random;
    this.#isBad = this.#isBad ? !random.chance(toGood) : random.chance(toBad);
    const fCnt = this.#fCnt++;
    if (random.chance(this.#isBad ? lossBad : lossUp)) return [];
    const waiting = this.#down;
    this.#down = undefined;
    if (random.chance(delayed)) this.#delayed.push({ bytes, fCnt, after: fCnt + random.integer(1, 3) });
    else this.#deliver(bytes, fCnt);
    if (random.chance(doubled)) this.#deliver(bytes, fCnt);
    for (const item of this.#delayed.filter(({ after }) => after <= fCnt)) this.#deliver(item.bytes, item.fCnt);
    this.#delayed = this.#delayed.filter(({ after }) => after > fCnt);
    let down = waiting;
    if (down === undefined && !random.chance(lateAnswer)) {
      down = this.#down;
      this.#down = undefined;
    }
    return down === undefined || random.chance(this.#isBad ? lossBad : lossDown) ? [] : [down];
  }

  #deliver(bytes: Uint8Array, fCnt: number): void {
    if (bytes.length > 0) this.#act(this.#end.receive(bytes, fCnt, this.#nowMs, devAddr));
  }

  #act(actions: readonly ReceiverAction[]): void {
    for (const action of actions) {
      if (action.kind === "answer") this.#down = action.bytes;
      else {
        const packet = hexOf(action.packet);
        if (!this.#sent.has(packet)) this.wrongPackets++;
        if (this.#random.chance(this.#trouble.nodeCrash)) {
          this.#end = this.#end.restart?.(this.#nowMs) ?? this.#end;
          continue;
        }
        this.stored.add(packet);
        this.#act(this.#end.stored(this.#nowMs, action.packet));
      }
    }
  }
}

/** Believes that what is there when the All-1 comes is all there is: no check of the RCS. */
export class CarelessEnd implements ReceivingEnd {
  readonly #tiles = new Map<number, Uint8Array>();
  readonly #decode: (bytes: Uint8Array) => Fragment;
  readonly #complete: (window: number) => Uint8Array;

  constructor(decode: (bytes: Uint8Array) => Fragment, complete: (window: number) => Uint8Array) {
    this.#decode = decode;
    this.#complete = complete;
  }

  receive(bytes: Uint8Array): ReceiverAction[] {
    const fragment = this.#decode(bytes);
    if (fragment.kind === "regular") {
      const first = fragment.window * 63 + 62 - fragment.fcn;
      for (let at = 0; at * 10 < fragment.tiles.length; at++)
        this.#tiles.set(first + at, fragment.tiles.slice(at * 10, at * 10 + 10));
      return [];
    }
    if (fragment.kind === "sender-abort") return [];
    const tiles = [...this.#tiles].sort(([a], [b]) => a - b).flatMap(([, tile]) => [...tile]);
    this.#tiles.clear();
    const answer: ReceiverAction = { kind: "answer", bytes: this.#complete(fragment.window) };
    if (fragment.kind === "ack-request") return [answer];
    return [{ kind: "packet", packet: Uint8Array.from([...tiles, ...fragment.tile]) }, answer];
  }

  stored(): ReceiverAction[] {
    return [];
  }

  expire(): ReceiverAction[] {
    return [];
  }
}

export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
