/** Records on their way in fragments: up to four at once, each on an FPort of its own in rotation (RFC 9011 has no DTag). */
import { fragmentPorts, packetOf } from "../protocol/lorawan.ts";
import type { LoraRecord } from "./lora-record.ts";
import type { LoraSessionStatus } from "./lora-status.ts";
import { SchcSender, type SenderOptions, type SenderOutcome, type SenderState } from "./schc-sender.ts";

const ports: readonly number[] = fragmentPorts;
/**
 * How long an answer is waited for after each request for one. The first ones are near: a request is short, and without an answer the packet
 * stays incomplete. All eight take some 13 h, as long as the full node keeps what it has (RFC 9011 §5.6.2: 12 h).
 */
const retryDelaysMs: readonly number[] = [0.5, 2, 5, 15, 30, 60, 180, 480].map((minutes) => minutes * 60_000);
/** After something came down, a session waits no longer than this to ask again. */
const heardDelayMs = 5 * 60_000;
/** A session that asked in vain so often gives its FPort to a newer record where all are taken. */
const yieldsAfterAttempts = 2;

const senderOptions: SenderOptions = { retryDelaysMs };

export interface LoraSession {
  readonly epoch: number;
  readonly sequence: number;
  readonly beganMs: number;
  readonly sender: SchcSender;
}

/** Plain data, whole milliseconds. */
export interface SessionState {
  readonly epoch: number;
  readonly sequence: number;
  readonly ageMs: number;
  readonly sender: SenderState;
}

export interface SessionsState {
  readonly open: readonly SessionState[];
  /** Place in {@link fragmentPorts} of the port to try first for the next session. */
  readonly turn: number;
}

export class LoraSessions {
  #open: LoraSession[] = [];
  #turn = 0;

  restore(state: SessionsState, elapsedMs: number, nowMs: number): void {
    this.#turn = state.turn;
    const thenMs = nowMs - elapsedMs; // what remained then is counted from then
    this.#open = state.open.map(({ epoch, sequence, ageMs, sender }) => ({
      ...{ epoch, sequence },
      beganMs: thenMs - ageMs,
      sender: SchcSender.restore(sender, thenMs, senderOptions),
    }));
  }

  state(nowMs: number): SessionsState {
    const open = this.#open.map(({ epoch, sequence, beganMs, sender }) => ({
      ...{ epoch, sequence },
      ageMs: Math.max(0, Math.floor(nowMs - beganMs)),
      sender: sender.state(nowMs),
    }));
    return { open, turn: this.#turn };
  }

  has(epoch: number, sequence: number): boolean {
    return this.#open.some((session) => session.epoch === epoch && session.sequence === sequence);
  }

  /** The port of the next session; undefined where all are taken. */
  get nextPort(): number | undefined {
    const inTurn = [...ports.slice(this.#turn), ...ports.slice(0, this.#turn)];
    return inTurn.find((port) => !this.#open.some(({ sender }) => sender.port === port));
  }

  /** Undefined where all ports are taken. */
  begin({ epoch, sequence, bytes }: LoraRecord, nowMs: number): LoraSession | undefined {
    const port = this.nextPort;
    if (port === undefined) return undefined;
    this.#turn = (ports.indexOf(port) + 1) % ports.length;
    const sender = SchcSender.begin(port, packetOf(bytes), senderOptions);
    const session = { epoch, sequence, beganMs: nowMs, sender };
    this.#open = [...this.#open, session];
    return session;
  }

  /**
   * Where all ports are taken: the oldest session whose packet is out and whose requests go unanswered, so that a network that says
   * nothing, and yet may carry all there is, does not stop what is new. Undefined where each still has something to send.
   */
  yielding(nowMs: number): LoraSession | undefined {
    if (this.#open.length < ports.length) return undefined;
    return this.#open.find(({ sender }) => {
      const waits = (sender.wakesAtMs(nowMs) ?? nowMs) > nowMs;
      return waits && sender.state(nowMs).attempts >= yieldsAfterAttempts;
    });
  }

  /** Those that have a frame to send now, the newest first. */
  due(nowMs: number): LoraSession[] {
    return this.#open.filter(({ sender }) => (sender.wakesAtMs(nowMs) ?? Number.POSITIVE_INFINITY) <= nowMs).reverse();
  }

  /** When the next one has. */
  nextDueMs(nowMs: number): number | undefined {
    const all = this.#open.map(({ sender }) => sender.wakesAtMs(nowMs)).filter((wakesMs) => wakesMs !== undefined);
    return all.length === 0 ? undefined : Math.min(...all);
  }

  /** A downlink on a port of fragments; false where no session is meant. */
  received(port: number, bytes: Uint8Array, nowMs: number): boolean {
    const session = this.#open.find(({ sender }) => sender.port === port);
    return session?.sender.received(bytes, nowMs) === true;
  }

  /** Something came down: the network is there, so what asked in vain asks again soon. Not while a frame is on its way. */
  heard(nowMs: number): void {
    this.#open = this.#open.map((session) => {
      if ((session.sender.wakesAtMs(nowMs) ?? nowMs) <= nowMs + heardDelayMs) return session;
      const state = { ...session.sender.state(nowMs), remainingMs: heardDelayMs };
      return { ...session, sender: SchcSender.restore(state, nowMs, senderOptions) };
    });
  }

  end(session: LoraSession): void {
    this.#open = this.#open.filter((other) => other !== session);
  }

  /** Those that have come to an outcome; they stay until {@link end}. */
  get ended(): { readonly session: LoraSession; readonly outcome: SenderOutcome }[] {
    return this.#open.flatMap((session) => {
      const { outcome } = session.sender;
      return outcome === undefined ? [] : [{ session, outcome }];
    });
  }

  get open(): readonly LoraSession[] {
    return this.#open;
  }

  status(nowMs: number): LoraSessionStatus[] {
    return this.#open.map(({ epoch, sequence, beganMs, sender }) => ({
      ...{ port: sender.port, epoch, sequence, bytes: sender.packet.length },
      ageMs: nowMs - beganMs,
    }));
  }
}
