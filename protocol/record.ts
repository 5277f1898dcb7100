/**
 * A sealed record: what a wallet signs, one link of its device's chain. Layout and keys: protocol/README.md and ecp.cddl.
 * A record holds either the rows of one meter or events of the wallet; both are links of the same chain.
 */
import {
  type CoseSign1,
  contentTypes,
  decodeCose,
  digestOf,
  encodeCose,
  type Sha256,
  type Sign,
  signCose,
  signedCose,
} from "./cose-sign1.ts";
import { type CborKey, type CborMap, type CborValue, decodeCbor, encodeCbor } from "./deterministic-cbor.ts";
import { asArray, asBytes, asInteger, asMap, asText, uint32Max } from "./field.ts";
import { clockStateLetters, hasValues, statuses, statusLetters } from "./reading-status.ts";
import { Refusal } from "./refusal.ts";

export const recordVersion = 1;
export const recordBytesMax = 16_384;
export const rowsMax = 1_440;
export const codesMax = 64;
export const codeMax = 65_535;
export const eventsMax = 64;
export const metersMax = 256;
const planMax = 255;
const meterSerialBytesMax = 64;
export const slotSecondsMax = 86_400;
/** So that the difference of two values is a safe integer. */
export const valueMax = 2 ** 52 - 1;
export const previousBytes = 16;
/** `previous` of the first record of a device's first epoch. */
export const noPrevious: Uint8Array = new Uint8Array(previousBytes);

export interface Row {
  /** Unix seconds of the end of the row's slot; seconds since boot where the record's clock state is relative. */
  readonly timeS: number;
  readonly status: number;
  /** One integer a code; empty where the status is one without values (see reading-status.ts). */
  readonly values: readonly number[];
}

/** An event: its code and parameters. Codes: {@link eventCodes}. */
export type RecordEvent = readonly [code: number, ...parameters: (number | string | Uint8Array)[]];

export const eventCodes = {
  /** [software id, policy digest of 32 bytes]; with the counter of a TPM as third where there is one */
  started: 1,
  /** [] */
  stopped: 2,
  /** [policy digest of 32 bytes] */
  parametersChanged: 3,
  /**
   * [generation that ended, generation that begins, seconds that the time went back or forth]; with the boot's id (16 bytes) as
   * fourth where the generation that begins is a boot whose clock is not set
   */
  clockStepped: 4,
  /** [meter, reason, number of the installation that begins] */
  meterReplaced: 5,
  /** [meter, code] */
  registerWentBack: 6,
  /** [how many, in the minute before] */
  refusals: 7,
  /** [what, in words] */
  storageError: 8,
  /** [first sequence, last sequence]: these will never come, or win if they do */
  void: 9,
  /** [old software id, new software id] */
  updated: 10,
  /** [content type, first 16 bytes of the digest]: the key signed something other than a record */
  keyUsed: 11,
  /** [certificate by the new key, see rotation.ts]: the last record of its epoch; the next epoch is the new key's */
  keyRotated: 12,
  /** [reason of {@link epochReasons}, epoch before, last sequence known of it, digest of that record] */
  epochBegun: 13,
  /** [epoch, first sequence, last sequence]: overwritten unacknowledged, as the operator's policy says */
  dropped: 14,
  /** []: the last record of its key */
  keyRetired: 15,
  /** [value]: what the TPM's counter is raised to next; 0: it does not count any more */
  counterRaised: 16,
} as const;

/** Why an epoch began that no rotation announced. */
export const epochReasons = { restored: 1, contradicted: 2, olderCard: 3 } as const;

interface Link {
  readonly epoch: number;
  readonly sequence: number;
  /** First 16 bytes of the previous record's digest. */
  readonly previous: Uint8Array;
  readonly clockState: number;
  readonly generation: number;
}

export interface ReadingContent extends Link {
  readonly kind: "reading";
  readonly meter: number;
  /** Uplink plan: 0 is the full one, others are thinner rows of the same meter. */
  readonly plan: number;
  /** Slot length in seconds; 0 is a snapshot and has one row. */
  readonly slotS: number;
  readonly codes: readonly number[];
  readonly rows: readonly Row[];
  readonly meterSerial?: string;
}

export interface EventContent extends Link {
  readonly kind: "event";
  readonly timeS: number;
  readonly events: readonly RecordEvent[];
}

export type RecordContent = ReadingContent | EventContent;

const key = {
  version: 1,
  epoch: 2,
  sequence: 3,
  previous: 4,
  meter: 5,
  time: 6,
  clockState: 7,
  slot: 8,
  codes: 9,
  rows: 10,
  status: 11,
  rowStatuses: 12,
  generation: 13,
  meterSerial: 16,
  events: 19,
  plan: 20,
} as const;

/** What only a record of rows has. */
const readingKeys = [
  key.meter,
  key.slot,
  key.codes,
  key.rows,
  key.status,
  key.rowStatuses,
  key.meterSerial,
  key.plan,
] as const;

/** The payload's bytes. Throws Refusal on content that no decoder would take: nothing is signed that cannot be read. */
export function encodeRecordPayload(content: RecordContent): Uint8Array {
  checkRecordContent(content);
  const payload: CborMap = new Map<CborKey, CborValue>([
    [key.version, recordVersion],
    [key.epoch, content.epoch],
    [key.sequence, content.sequence],
    [key.previous, content.previous],
  ]);
  // In the order of the keys, which the encoder then need not sort.
  if (content.kind === "reading" && content.meter !== 0) payload.set(key.meter, content.meter);
  payload.set(key.time, content.kind === "reading" ? (content.rows[0] as Row).timeS : content.timeS);
  if (content.clockState !== 0) payload.set(key.clockState, content.clockState);
  if (content.kind === "reading") setReading(payload, content);
  if (content.generation !== 0) payload.set(key.generation, content.generation);
  if (content.kind === "reading" && content.meterSerial !== undefined)
    payload.set(key.meterSerial, content.meterSerial);
  if (content.kind === "event")
    payload.set(
      key.events,
      content.events.map((event) => [...event]),
    );
  if (content.kind === "reading" && content.plan !== 0) payload.set(key.plan, content.plan);
  const bytes = encodeCbor(payload);
  if (bytes.length > recordBytesMax) throw new Refusal("too-large", `a payload of ${bytes.length} bytes`);
  return bytes;
}

/**
 * Throws Refusal on content that {@link decodeRecordPayload} would not give back. Its rules once more, from the other side: a
 * test holds the two against each other, so that nothing need be read again after it was written.
 */
function checkRecordContent(content: RecordContent): void {
  asInteger(content.epoch, "epoch", 0, uint32Max);
  asInteger(content.sequence, "sequence", 1, uint32Max);
  if (content.previous.length !== previousBytes) throw new Refusal("bad-field", "previous");
  asInteger(content.clockState, "clock state", 0, clockStateLetters.length - 1);
  asInteger(content.generation, "clock generation", 0, uint32Max);
  if (content.kind === "reading") {
    checkReading(content);
    return;
  }
  asInteger(content.timeS, "time", 0, uint32Max);
  const { events } = content;
  if (events.length === 0) throw new Refusal("bad-field", "no event");
  if (events.length > eventsMax) throw new Refusal("bad-field", `${events.length} events, at most ${eventsMax}`);
  for (const event of events) readEvent(event as unknown as CborValue);
}

function checkReading({ meter, plan, slotS, codes, rows, meterSerial }: ReadingContent): void {
  asInteger(meter, "meter", 0, metersMax - 1);
  asInteger(plan, "plan", 0, planMax);
  asInteger(slotS, "slot", 0, slotSecondsMax);
  if (codes.length > codesMax) throw new Refusal("bad-field", `${codes.length} codes, at most ${codesMax}`);
  for (const code of codes) asInteger(code, "code", 1, codeMax);
  checkAscending(codes);
  const [first] = rows;
  if (first === undefined || rows.length > rowsMax) throw new Refusal("bad-rows", `${rows.length} rows`);
  if (slotS === 0 && rows.length !== 1) throw new Refusal("bad-rows", "a snapshot has one row");
  asInteger(first.timeS, "time", 0, uint32Max - (rows.length - 1) * slotS);
  for (const [i, { timeS, status, values }] of rows.entries()) {
    if (timeS !== first.timeS + i * slotS)
      throw new Refusal("bad-rows", `row ${i} is of ${timeS}, not ${first.timeS + i * slotS}`);
    asInteger(status, "status", 0, statusLetters.length - 1);
    if (values.length !== (hasValues(status) ? codes.length : 0))
      throw new Refusal("bad-rows", `row ${i} has ${values.length} values`);
    for (const value of values) asInteger(value, "value", -valueMax, valueMax);
  }
  if (meterSerial !== undefined) asText(meterSerial, "meter serial", meterSerialBytesMax);
}

function checkAscending(codes: readonly number[]): void {
  if (codes.length === 0 || codes.some((code, i) => i > 0 && code <= (codes[i - 1] as number)))
    throw new Refusal("bad-rows", "codes must ascend and there must be one at least");
}

function setReading(payload: CborMap, content: ReadingContent): void {
  const first = content.rows[0] as Row;
  payload.set(key.slot, content.slotS);
  payload.set(key.codes, [...content.codes]);
  payload.set(key.rows, flatten(content));
  const common = content.rows.every((row) => row.status === first.status);
  if (common && first.status !== statuses.good) payload.set(key.status, first.status);
  if (!common) {
    const others = content.rows.map((row, i): [number, number] => [i, row.status]);
    payload.set(key.rowStatuses, new Map(others.filter(([, status]) => status !== statuses.good)));
  }
}

/** Rows one after the other: the first absolute, later ones as differences; a row without values repeats the last. */
function flatten(content: ReadingContent): number[] {
  const flat: number[] = [];
  let last: readonly number[] = content.codes.map(() => 0);
  for (const row of content.rows) {
    const values = hasValues(row.status) ? row.values : last;
    for (const [k, value] of values.entries()) flat.push(value - (last[k] as number));
    last = values;
  }
  return flat;
}

/** Takes a record's payload apart. Throws {@link Refusal}. Unknown keys are left aside. */
export function decodeRecordPayload(bytes: Uint8Array): RecordContent {
  const payload = asMap(decodeCbor(bytes, recordBytesMax), "payload");
  const version = asInteger(payload.get(key.version), "version", 0, uint32Max);
  if (version !== recordVersion) throw new Refusal("unsupported-version", `${version}`);
  const link: Link = {
    epoch: asInteger(payload.get(key.epoch), "epoch", 0, uint32Max),
    sequence: asInteger(payload.get(key.sequence), "sequence", 1, uint32Max),
    previous: asBytes(payload.get(key.previous), "previous", previousBytes),
    clockState: absentWhenZero(payload, key.clockState, "clock state", clockStateLetters.length - 1),
    generation: absentWhenZero(payload, key.generation, "clock generation", uint32Max),
  };
  const timeS = asInteger(payload.get(key.time), "time", 0, uint32Max);
  const events = payload.get(key.events);
  if (events === undefined) return readReading(payload, link, timeS);
  if (readingKeys.some((field) => payload.has(field))) throw new Refusal("bad-rows", "rows and events in one record");
  const list = asArray(events, "events", eventsMax).map(readEvent);
  if (list.length === 0) throw new Refusal("bad-field", "no event");
  return { kind: "event", ...link, timeS, events: list };
}

function readReading(payload: CborMap, link: Link, timeS: number): ReadingContent {
  const meter = absentWhenZero(payload, key.meter, "meter", metersMax - 1);
  const plan = absentWhenZero(payload, key.plan, "plan", planMax);
  const slotS = asInteger(payload.get(key.slot), "slot", 0, slotSecondsMax);
  const codes = asArray(payload.get(key.codes), "codes", codesMax).map((code) => asInteger(code, "code", 1, codeMax));
  checkAscending(codes);
  const flat = asArray(payload.get(key.rows), "rows", codesMax * rowsMax);
  const count = flat.length / codes.length;
  if (!Number.isInteger(count) || count < 1 || count > rowsMax)
    throw new Refusal("bad-rows", `${flat.length} integers for ${codes.length} codes`);
  if (slotS === 0 && count !== 1) throw new Refusal("bad-rows", "a snapshot has one row");
  if (timeS + (count - 1) * slotS > uint32Max) throw new Refusal("bad-rows", "time beyond 32 bits");
  const rowStatuses = readStatuses(payload, count);
  const rows: Row[] = [];
  const last: number[] = codes.map(() => 0);
  for (let i = 0; i < count; i++) {
    const status = rowStatuses[i] as number;
    for (let k = 0; k < codes.length; k++) {
      const difference = asInteger(flat[i * codes.length + k], "row", -2 * valueMax, 2 * valueMax);
      const value = (last[k] as number) + difference;
      if (Math.abs(value) > valueMax) throw new Refusal("bad-rows", `row ${i}: a value beyond ±(2^52-1)`);
      if (difference !== 0 && !hasValues(status)) throw new Refusal("bad-rows", `row ${i} failed, yet has values`);
      last[k] = value;
    }
    rows.push({ timeS: timeS + i * slotS, status, values: hasValues(status) ? [...last] : [] });
  }
  const serial = payload.get(key.meterSerial);
  const meterSerial = serial === undefined ? {} : { meterSerial: asText(serial, "meter serial", meterSerialBytesMax) };
  return { kind: "reading", ...link, meter, plan, slotS, codes, rows, ...meterSerial };
}

function readStatuses(payload: CborMap, count: number): number[] {
  const common = absentWhenZero(payload, key.status, "status", statusLetters.length - 1);
  const result = new Array<number>(count).fill(common);
  const others = payload.get(key.rowStatuses);
  if (others === undefined) return result;
  if (common !== 0) throw new Refusal("bad-field", "row statuses beside a status for all");
  for (const [row, status] of asMap(others, "row statuses")) {
    const index = asInteger(row, "row status", 0, count - 1);
    result[index] = asInteger(status, "row status", 1, statusLetters.length - 1);
  }
  if (result.every((status) => status === result[0]))
    throw new Refusal("bad-field", "row statuses that are all the same");
  return result;
}

function readEvent(value: CborValue): RecordEvent {
  const [code, ...parameters] = asArray(value, "event", 16);
  const checked = parameters.map((parameter) => {
    if (typeof parameter === "number" || typeof parameter === "string" || parameter instanceof Uint8Array)
      return parameter instanceof Uint8Array ? new Uint8Array(parameter) : parameter;
    throw new Refusal("bad-field", "an event's parameters are integers, texts and byte strings");
  });
  return [asInteger(code, "event code", 0, 65_535), ...checked];
}

/** A field that is 0 when absent, and must not be there with the value 0: one meaning, one encoding. */
function absentWhenZero(payload: CborMap, field: number, name: string, max: number): number {
  const value = payload.get(field);
  return value === undefined ? 0 : asInteger(value, name, 1, max);
}

export interface DecodedRecord {
  readonly cose: CoseSign1;
  readonly content: RecordContent;
  /** SHA-256, 32 bytes: the record's one digest. */
  readonly digest: Uint8Array;
}

/** A record from its bytes: form and content checked, its signature not yet. Throws {@link Refusal}. */
export function decodeRecord(bytes: Uint8Array, sha256: Sha256): DecodedRecord {
  const cose = decodeCose(bytes, contentTypes.record, recordBytesMax);
  return { cose, content: decodeRecordPayload(cose.payload), digest: digestOf(cose, sha256) };
}

/** Signs a record. The bytes carry tag and kid where a kid is given, neither over LoRaWAN. */
export function signRecord(content: RecordContent, sign: Sign, kid?: Uint8Array): Uint8Array {
  const bytes = signCose(contentTypes.record, encodeRecordPayload(content), sign, kid);
  if (bytes.length > recordBytesMax) throw new Refusal("too-large", `a record of ${bytes.length} bytes`);
  return bytes;
}

/** Signs a record and gives it beside its bytes, just as {@link decodeRecord} would read it from them, without reading it. */
export function sealRecord(
  content: RecordContent,
  sign: Sign,
  kid: Uint8Array,
  sha256: Sha256,
): { bytes: Uint8Array; decoded: DecodedRecord } {
  const cose = signedCose(contentTypes.record, encodeRecordPayload(content), sign, kid);
  const bytes = encodeCose(cose);
  if (bytes.length > recordBytesMax) throw new Refusal("too-large", `a record of ${bytes.length} bytes`);
  return { bytes, decoded: { cose, content, digest: digestOf(cose, sha256) } };
}
