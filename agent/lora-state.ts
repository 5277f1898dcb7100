/**
 * The uplink's state as bytes: what must outlive the process. Deterministic CBOR behind a magic number and a CRC-32; in it only spans of
 * time, and when and in which boot of the machine it was written, so that another process can tell how long ago that was.
 */
import { crc32 } from "node:zlib";
import { type Clock, isSet } from "../platform/clock.ts";
import { type CborMap, type CborValue, decodeCbor, encodeCbor, equalBytes } from "../protocol/deterministic-cbor.ts";
import { asArray, asBytes, asInteger, asMap, asText, uint32Max } from "../protocol/field.ts";
import { fragmentPorts, packetBytesMax } from "../protocol/lorawan.ts";
import { Refusal } from "../protocol/refusal.ts";
import type { BudgetState } from "./lora-budget.ts";
import type { JoinState } from "./lora-join.ts";
import type { RepeatState } from "./lora-repeats.ts";
import type { SessionState, SessionsState } from "./lora-sessions.ts";
import type { SenderState } from "./schc-sender.ts";

export interface LoraUplinkState {
  readonly budget: BudgetState;
  readonly join: JoinState;
  readonly sessions: SessionsState;
  readonly repeats: readonly RepeatState[];
  /** Records that no SCHC packet can hold: epoch and sequence. */
  readonly tooLarge: readonly (readonly [epoch: number, sequence: number])[];
}

/** When and where a state was written. */
export interface StateClock {
  readonly clock: Clock;
  readonly bootId: string;
}

const version = 1;
const magic = new TextEncoder().encode("ECPLORA1");
const headBytes = magic.length + 4;
const bytesMax = 1_048_576;
const itemsMax = 100_000;
const msMax = Number.MAX_SAFE_INTEGER;
const tilesMax = 252;

export function encodeLoraState(state: LoraUplinkState, { clock, bootId }: StateClock): Uint8Array {
  const { budget, join, sessions, repeats, tooLarge } = state;
  const frames = budget.frames.map(({ ageMs, airtimeMs, boundMs }) => [ageMs, airtimeMs, boundMs]);
  const content = encodeCbor(
    new Map<number, CborValue>([
      [1, version],
      [2, bootId],
      [3, Math.floor(clock.monotonicMs())],
      [4, Math.floor(clock.wallMs())],
      [5, frames],
      [6, budget.open ? [budget.open.airtimeMs, budget.open.boundMs] : []],
      [7, [join.failures, join.nextInMs, join.silentMs ?? null, join.unansweredFrames]],
      [8, sessions.open.map(encodeSession)],
      [9, sessions.turn],
      [10, repeats.map(({ epoch, sequence, tries, dueInMs }) => [epoch, sequence, tries, dueInMs])],
      [11, tooLarge.map((record) => [...record])],
    ]),
  );
  const bytes = new Uint8Array(headBytes + content.length);
  bytes.set(magic);
  new DataView(bytes.buffer).setUint32(magic.length, crc32(content));
  bytes.set(content, headBytes);
  return bytes;
}

/**
 * @returns the state and how many milliseconds ago it was written; 0 where that cannot be known: another boot, and a wall clock that was
 * not set then or is not now, or that went back.
 * @throws Refusal on bytes that are not such a state
 */
export function decodeLoraState(bytes: Uint8Array, now: StateClock): { state: LoraUplinkState; elapsedMs: number } {
  if (bytes.length < headBytes || !equalBytes(bytes.subarray(0, magic.length), magic))
    throw new Refusal("bad-field", "it does not begin as a state of the LoRaWAN uplink does");
  const content = bytes.subarray(headBytes);
  const crc = new DataView(bytes.buffer, bytes.byteOffset).getUint32(magic.length);
  if (crc !== crc32(content)) throw new Refusal("bad-field", "its CRC-32 is another one");
  const map = asMap(decodeCbor(content, bytesMax), "state");
  if (map.get(1) !== version) throw new Refusal("unsupported-version", `version ${map.get(1)}, known is ${version}`);
  const budget = {
    frames: asArray(map.get(5), "frames", itemsMax).map(decodeFrame),
    ...decodeOpen(asArray(map.get(6), "open", 2)),
  };
  const sessions = {
    open: asArray(map.get(8), "sessions", fragmentPorts.length).map(decodeSession),
    turn: asInteger(map.get(9), "turn", 0, fragmentPorts.length - 1),
  };
  const repeats = asArray(map.get(10), "repeats", itemsMax).map(decodeRepeat);
  const tooLarge = asArray(map.get(11), "too large", itemsMax).map((record) => {
    const [epoch, sequence] = asArray(record, "record", 2);
    return [counter(epoch, "epoch"), counter(sequence, "sequence")] as const;
  });
  const state = { budget, join: decodeJoin(map.get(7)), sessions, repeats, tooLarge };
  return { state, elapsedMs: elapsedSince(map, now) };
}

function elapsedSince(map: CborMap, { clock, bootId }: StateClock): number {
  const monotonicMs = asInteger(map.get(3), "monotonic time", 0, msMax);
  const wallMs = asInteger(map.get(4), "wall time", -msMax, msMax);
  if (asText(map.get(2), "boot", 128) === bootId) return Math.max(0, Math.floor(clock.monotonicMs()) - monotonicMs);
  const nowMs = Math.floor(clock.wallMs());
  return isSet(wallMs) && isSet(nowMs) ? Math.max(0, nowMs - wallMs) : 0;
}

function counter(value: CborValue | undefined, name: string): number {
  return asInteger(value, name, 0, uint32Max);
}

function span(value: CborValue | undefined, name: string): number {
  return asInteger(value, name, 0, msMax);
}

function decodeFrame(value: CborValue): BudgetState["frames"][number] {
  const [ageMs, airtimeMs, boundMs] = asArray(value, "frame", 3);
  return {
    ageMs: asInteger(ageMs, "age", -msMax, msMax),
    airtimeMs: span(airtimeMs, "airtime"),
    boundMs: span(boundMs, "airtime at most"),
  };
}

function decodeOpen(values: CborValue[]): Pick<BudgetState, "open"> {
  if (values.length === 0) return {};
  return { open: { airtimeMs: span(values[0], "airtime"), boundMs: span(values[1], "airtime at most") } };
}

function decodeJoin(value: CborValue | undefined): JoinState {
  const [failures, nextInMs, silentMs, unansweredFrames] = asArray(value, "join", 4);
  return {
    failures: counter(failures, "failures"),
    nextInMs: span(nextInMs, "next join"),
    ...(silentMs !== null && { silentMs: span(silentMs, "silence") }),
    unansweredFrames: counter(unansweredFrames, "unanswered frames"),
  };
}

function decodeRepeat(value: CborValue): RepeatState {
  const [epoch, sequence, tries, dueInMs] = asArray(value, "repeat", 4);
  return {
    epoch: counter(epoch, "epoch"),
    sequence: counter(sequence, "sequence"),
    tries: counter(tries, "tries"),
    dueInMs: span(dueInMs, "due"),
  };
}

const requests = ["all-1", "ack-request"] as const;
const lastTiles = ["all-1", "regular"] as const;
const allOnes = ["unknown", "there", "lost"] as const;
const abortions = ["unacknowledged", "rcs-mismatch", "begin-again"] as const;
const outcomes = ["acknowledged", "receiver-abort", "unacknowledged", "rcs-mismatch"] as const;

function encodeSession({ epoch, sequence, ageMs, sender }: SessionState): CborMap {
  return new Map<number, CborValue>([
    [1, epoch],
    [2, sequence],
    [3, ageMs],
    [4, sender.port],
    [5, sender.packet],
    [6, [...sender.missing]],
    [7, [...sender.acknowledged]],
    [8, [...sender.unasked]],
    [9, [sender.attempts, sender.mismatches]],
    [10, sender.allOne],
    [11, sender.lastTile ?? null],
    [12, sender.request ?? null],
    [13, sender.lastRequest ?? null],
    [14, sender.aborting ?? null],
    [15, sender.remainingMs === undefined ? null : Math.ceil(sender.remainingMs)],
    [16, sender.outcome ?? null],
  ]);
}

function decodeSession(value: CborValue): SessionState {
  const map = asMap(value, "session");
  const port = asInteger(map.get(4), "port", 1, 223);
  if (!fragmentPorts.some((known) => known === port)) throw new Refusal("bad-field", `port ${port}`);
  const packet = asBytes(map.get(5), "packet", packetBytesMax, 1);
  const tiles = (key: number, name: string): number[] =>
    asArray(map.get(key), name, tilesMax).map((tile) => asInteger(tile, name, 0, Math.ceil(packet.length / 10) - 1));
  const [attempts, mismatches] = asArray(map.get(9), "attempts", 2);
  const [lastTile, request] = [oneOf(lastTiles, map.get(11)), oneOf(requests, map.get(12))];
  const [lastRequest, aborting] = [oneOf(requests, map.get(13)), oneOf(abortions, map.get(14))];
  const outcome = oneOf(outcomes, map.get(16));
  const remaining = map.get(15);
  const sender: SenderState = {
    port,
    packet,
    missing: tiles(6, "missing"),
    acknowledged: tiles(7, "acknowledged"),
    unasked: tiles(8, "unasked"),
    attempts: counter(attempts, "attempts"),
    mismatches: counter(mismatches, "mismatches"),
    allOne: oneOf(allOnes, map.get(10)) ?? "unknown",
    ...(lastTile && { lastTile }),
    ...(request && { request }),
    ...(lastRequest && { lastRequest }),
    ...(aborting && { aborting }),
    ...(remaining !== null && { remainingMs: span(remaining, "remaining") }),
    ...(outcome && { outcome }),
  };
  return {
    epoch: counter(map.get(1), "epoch"),
    sequence: counter(map.get(2), "sequence"),
    ageMs: span(map.get(3), "age"),
    sender,
  };
}

function oneOf<Name extends string>(names: readonly Name[], value: CborValue | undefined): Name | undefined {
  if (value === null) return undefined;
  const name = names.find((known) => known === value);
  if (name === undefined) throw new Refusal("bad-field", `expected one of ${names.join(", ")}`);
  return name;
}
