/**
 * Packets that come in fragments: a receiver for each modem and port, as many as may be, all that is known of them kept in the store too,
 * because a session may last for hours.
 */
import type { Clock } from "../platform/clock.ts";
import { type CborMap, type CborValue, decodeCbor, encodeCbor } from "../protocol/deterministic-cbor.ts";
import { asArray, asBytes, asInteger, asMap, asText, uint32Max } from "../protocol/field.ts";
import { packetBytesMax } from "../protocol/lorawan.ts";
import { Refusal } from "../protocol/refusal.ts";
import { tileBytes, tilesMax } from "../protocol/schc.ts";
import { type ReceiverState, SchcReceiver } from "./schc-receiver.ts";
import type { LorawanChanges, LorawanSession } from "./store-lorawan.ts";

/** Four ports a modem; more than 10,000 modems in the middle of a packet at one moment would be a flood. */
const sessionsMax = 40_000;
/** Looked at, the longest silent ones first, for one to be forgotten where there are too many. */
const lookedAtMax = 1_000;
const stateBytesMax = 16_384;
const stateVersion = 1;
const phases = ["idle", "collecting", "whole", "stored", "refused"] as const satisfies ReceiverState["phase"][];

interface Session {
  readonly devEui: string;
  readonly port: number;
  readonly receiver: SchcReceiver;
}

export class LorawanSessions {
  readonly #clock: Clock;
  readonly #sessionsMax: number;
  /** The one that was heard last is last. */
  readonly #sessions = new Map<string, Session>();
  readonly #dirty = new Map<string, Session>();
  readonly #ended = new Map<string, { readonly devEui: string; readonly port: number }>();

  constructor(clock: Clock, limit = sessionsMax) {
    this.#clock = clock;
    this.#sessionsMax = limit;
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** Takes up a stored session. Gives its packet where that was whole and nobody has said what became of it; false: it cannot be read. */
  restore({ devEui, port, state, updatedMs }: LorawanSession): Uint8Array | undefined | false {
    const key = keyOf(devEui, port);
    try {
      const read = decodeReceiverState(state);
      const awayMs = Math.max(0, this.#clock.wallMs() - updatedMs);
      if (read.phase === "idle" || awayMs >= read.remainingMs) {
        this.#ended.set(key, { devEui, port });
        return undefined;
      }
      const left = { ...read, remainingMs: read.remainingMs - awayMs };
      this.#sessions.set(key, { devEui, port, receiver: SchcReceiver.restore(left, this.#clock.monotonicMs()) });
      return read.phase === "whole" ? read.packet : undefined;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#ended.set(key, { devEui, port });
      return false;
    }
  }

  get(devEui: string, port: number): SchcReceiver | undefined {
    return this.#sessions.get(keyOf(devEui, port))?.receiver;
  }

  /** The receiver of a port; a new one where there is none. Undefined: there are too many. */
  receiverFor(devEui: string, port: number): SchcReceiver | undefined {
    const key = keyOf(devEui, port);
    const known = this.#sessions.get(key);
    if (known === undefined && this.#sessions.size >= this.#sessionsMax && !this.#makeRoom()) return undefined;
    const session = known ?? { devEui, port, receiver: new SchcReceiver() };
    this.#sessions.delete(key);
    this.#sessions.set(key, session);
    return session.receiver;
  }

  /**
   * Of a packet that was settled only the answer is kept, for a device that missed it: without it that one sends its packet again. So the
   * one that was silent for longest is forgotten, or new devices would be kept out by those that are served.
   */
  #makeRoom(): boolean {
    let looked = 0;
    for (const session of this.#sessions.values()) {
      if (++looked > lookedAtMax) return false;
      if (!session.receiver.isSettled) continue;
      this.#end(session);
      return true;
    }
    return false;
  }

  /** After anything was done to a receiver: it is saved, or forgotten where it has ended. */
  changed(devEui: string, port: number): void {
    const key = keyOf(devEui, port);
    const session = this.#sessions.get(key);
    if (session === undefined) return;
    this.#dirty.set(key, session);
    this.#ended.delete(key);
    if (session.receiver.isIdle) this.#end(session);
  }

  #end({ devEui, port }: Session): void {
    const key = keyOf(devEui, port);
    this.#sessions.delete(key);
    this.#dirty.delete(key);
    this.#ended.set(key, { devEui, port });
  }

  forgetModem(devEui: string, ports: readonly number[]): void {
    for (const port of ports) {
      const session = this.#sessions.get(keyOf(devEui, port));
      if (session) this.#end(session);
    }
  }

  /** Ends what was silent for too long. Gives what is to be answered to whom. */
  expire(): { devEui: string; port: number; bytes: Uint8Array }[] {
    const nowMs = this.#clock.monotonicMs();
    const answers: { devEui: string; port: number; bytes: Uint8Array }[] = [];
    for (const { devEui, port, receiver } of [...this.#sessions.values()]) {
      if ((receiver.deadlineMs ?? 0) > nowMs) continue;
      for (const action of receiver.expire(nowMs))
        if (action.kind === "answer") answers.push({ devEui, port, bytes: action.bytes });
      this.changed(devEui, port);
    }
    return answers;
  }

  get hasChanges(): boolean {
    return this.#dirty.size > 0 || this.#ended.size > 0;
  }

  /** What has changed since the last call. */
  takeChanges(): Pick<LorawanChanges, "sessions" | "ended"> {
    const updatedMs = this.#clock.wallMs();
    const nowMs = this.#clock.monotonicMs();
    const sessions = [...this.#dirty.values()].map(({ devEui, port, receiver }) => ({
      ...{ devEui, port, updatedMs },
      state: encodeReceiverState(receiver.state(nowMs)),
    }));
    const ended = [...this.#ended.values()];
    this.#dirty.clear();
    this.#ended.clear();
    return { sessions, ended };
  }

  /** They could not be saved: they are to be saved again, as they are then. */
  giveBack({ sessions, ended }: Pick<LorawanChanges, "sessions" | "ended">): void {
    for (const { devEui, port } of sessions) {
      const session = this.#sessions.get(keyOf(devEui, port));
      if (session) this.#dirty.set(keyOf(devEui, port), session);
    }
    for (const one of ended) if (!this.get(one.devEui, one.port)) this.#ended.set(keyOf(one.devEui, one.port), one);
  }
}

function keyOf(devEui: string, port: number): string {
  return `${devEui}/${port}`;
}

export function encodeReceiverState(state: ReceiverState): Uint8Array {
  const { phase, tiles, allOne, packet, attempts, newestFCnt, endedFCnt, devAddr, remainingMs } = state;
  const map: CborMap = new Map<number, CborValue>([
    [1, stateVersion],
    [2, phases.indexOf(phase)],
    [3, tiles.flat()],
  ]);
  if (allOne) map.set(4, [allOne.window, allOne.rcs, allOne.tile]);
  if (packet) map.set(5, packet);
  map.set(6, attempts);
  // From 0 on: the first frame ever is 0, and before it stands −1.
  map.set(7, newestFCnt + 1);
  map.set(8, endedFCnt + 1);
  map.set(9, Math.ceil(remainingMs));
  if (devAddr !== undefined) map.set(10, devAddr);
  return encodeCbor(map);
}

/** Throws {@link Refusal}. */
export function decodeReceiverState(bytes: Uint8Array): ReceiverState {
  const map = asMap(decodeCbor(bytes, stateBytesMax), "session");
  const number = (key: number, name: string, max = Number.MAX_SAFE_INTEGER) => asInteger(map.get(key), name, 0, max);
  if (number(1, "version") !== stateVersion) throw new Refusal("unsupported-version");
  const flat = asArray(map.get(3), "tiles", 2 * tilesMax);
  const tiles: [number, Uint8Array][] = [];
  for (let i = 0; i < flat.length; i += 2)
    tiles.push([asInteger(flat[i], "tile", 0, tilesMax - 1), asBytes(flat[i + 1], "tile", tileBytes, 1)]);
  const ending = map.get(4);
  const [window, rcs, tile] = ending === undefined ? [] : asArray(ending, "All-1", 3);
  const packet = map.get(5);
  const devAddr = map.get(10);
  return {
    phase: phases[number(2, "phase", phases.length - 1)] as ReceiverState["phase"],
    tiles,
    ...(ending !== undefined && {
      allOne: {
        window: asInteger(window, "window", 0, 3),
        rcs: asInteger(rcs, "rcs", 0, uint32Max),
        tile: asBytes(tile, "last tile", tileBytes, 0),
      },
    }),
    ...(packet !== undefined && { packet: asBytes(packet, "packet", packetBytesMax, 1) }),
    attempts: number(6, "attempts", 255),
    newestFCnt: number(7, "newest frame") - 1,
    endedFCnt: number(8, "ended frame") - 1,
    ...(devAddr !== undefined && { devAddr: asText(devAddr, "join", 40) }),
    remainingMs: number(9, "remaining"),
  };
}
