/**
 * What agent and wallet say to each other over their socket: framed messages of deterministic CBOR, one request at a time.
 * Request [type, id, fields], answer [id, fields] or [id, reason, detail]. There is no request that exports a key or signs
 * bytes of the caller's choice. Layout: wallet/README.md.
 */
import { type CborMap, type CborValue, decodeCbor, encodeCbor } from "./deterministic-cbor.ts";
import { asArray, asBytes, asInteger, asMap, asText, uint32Max } from "./field.ts";
import { hasValues, statusLetters } from "./reading-status.ts";
import { codeMax, codesMax, metersMax, type Row, slotSecondsMax, valueMax } from "./record.ts";
import { Refusal } from "./refusal.ts";

export const walletMessageBytesMax = 65_536;
/** Rows of one seal request: a minute of samples taken every second. */
export const sealRowsMax = 60;
/** Bytes of records in one answer. */
export const readBytesMax = 49_152;

export const walletRefusals = {
  malformed: "the request is not what this protocol asks for",
  "unknown-request": "there is no request of this type",
  "unknown-field": "the request has a field that this wallet does not know",
  "unknown-meter": "the wallet's policy does not name this meter",
  "unknown-plan": "the wallet's policy does not list this uplink plan",
  "slot-mismatch": "the wallet's policy gives this meter, or plan, another slot length",
  "row-conflict": "a row of this meter and time is sealed already, with other values",
  "rate-exceeded": "more is asked for in a minute than the wallet's policy allows",
  "ring-full": "the journal is full of records that no full node has acknowledged",
  "key-retired": "the device's key is retired: what is sealed can be read and released, nothing more is sealed",
  "period-not-held": "the journal does not hold the rows that this statement needs",
  "no-recipient": "records are to leave encrypted, and there is nobody to encrypt them to",
  "receipt-invalid": "the receipt's form or signature does not hold",
  "receipt-not-pinned": "the receipt is signed by a key that is not pinned in the wallet's policy",
  "receipt-other-device": "the receipt is for another device",
  "receipt-other-epoch": "the receipt is for another epoch",
  "receipt-beyond-sealed": "the receipt acknowledges records that were never sealed",
  "receipt-digest-mismatch": "the receipt names another digest than the record has",
} as const;
export type WalletRefusalReason = keyof typeof walletRefusals;

/** A wallet's refusal of a request. */
export class WalletRefusal extends Error {
  readonly reason: WalletRefusalReason;
  constructor(reason: WalletRefusalReason, detail?: string) {
    super(detail ? `${walletRefusals[reason]} (${detail})` : walletRefusals[reason]);
    this.name = "WalletRefusal";
    this.reason = reason;
  }
}

export interface SealRequest {
  readonly type: "seal";
  readonly meter: number;
  readonly plan: number;
  readonly slotS: number;
  readonly codes: readonly number[];
  readonly rows: readonly Row[];
  /** The rows' times are seconds since the boot: they were read before the clock was set. */
  readonly relative?: boolean;
  /** These rows, and all of this meter and plan that wait for their batch, are signed now. */
  readonly closes?: boolean;
}

/** Records of an epoch; where none is named, of the running one. */
export interface ReadRequest {
  readonly type: "read";
  readonly from: number;
  readonly to: number;
  readonly epoch?: number;
  /** In the form for LoRaWAN: without tag and kid, not encrypted; only those that may leave so. */
  readonly bare?: boolean;
}

export type WalletRequest =
  | { readonly type: "hello" }
  | { readonly type: "enrol" }
  | SealRequest
  | ReadRequest
  | { readonly type: "release"; readonly receipt: Uint8Array }
  /** A statement over a period, in Unix seconds. */
  | { readonly type: "statement"; readonly meter: number; readonly fromS: number; readonly toS: number };

const requestTypes = { hello: 1, enrol: 2, seal: 3, read: 4, release: 5, statement: 6 } as const;
export const walletRequestNames = Object.keys(requestTypes) as WalletRequest["type"][];

export function encodeWalletRequest(id: number, request: WalletRequest): Uint8Array {
  return encodeCbor([requestTypes[request.type], id, requestFields(request)]);
}

function requestFields(request: WalletRequest): CborMap {
  switch (request.type) {
    case "seal":
      return new Map<number, CborValue>([
        [1, request.meter],
        [2, request.plan],
        [3, request.slotS],
        [4, [...request.codes]],
        [5, request.rows.map((row) => [row.timeS, row.status, [...row.values]])],
        ...(request.relative ? ([[6, true]] as const) : []),
        ...(request.closes ? ([[7, true]] as const) : []),
      ]);
    case "read":
      return new Map<number, CborValue>([
        [1, request.from],
        [2, request.to],
        ...(request.epoch === undefined ? [] : ([[3, request.epoch]] as const)),
        ...(request.bare ? ([[4, true]] as const) : []),
      ]);
    case "statement":
      return new Map([
        [1, request.meter],
        [2, request.fromS],
        [3, request.toS],
      ]);
    case "release":
      return new Map([[1, request.receipt]]);
    default:
      return new Map();
  }
}

/** Takes a request apart, strictly: unknown types and fields are refused. Throws {@link WalletRefusal} with `id` where known. */
export function decodeWalletRequest(bytes: Uint8Array): { id: number; request: WalletRequest | WalletRefusal } {
  let id = 0;
  try {
    const [type, number, fields, ...rest] = asArray(decodeCbor(bytes, walletMessageBytesMax), "request", 3);
    id = asInteger(number, "id", 0, uint32Max);
    if (rest.length > 0) throw new Refusal("bad-field", "three items were expected");
    return { id, request: readRequest(asInteger(type, "type", 0, uint32Max), asMap(fields, "fields")) };
  } catch (error) {
    if (error instanceof WalletRefusal) return { id, request: error };
    if (error instanceof Refusal) return { id, request: new WalletRefusal("malformed", error.message) };
    throw error;
  }
}

function readRequest(type: number, fields: CborMap): WalletRequest {
  const allow = (highest: number): void => {
    for (const key of fields.keys())
      if (typeof key !== "number" || key < 1 || key > highest) throw new WalletRefusal("unknown-field", `${key}`);
  };
  switch (type) {
    case requestTypes.hello:
      allow(0);
      return { type: "hello" };
    case requestTypes.enrol:
      allow(0);
      return { type: "enrol" };
    case requestTypes.seal:
      allow(7);
      return readSeal(fields);
    case requestTypes.read: {
      allow(4);
      const epoch = fields.get(3);
      return {
        type: "read",
        from: asInteger(fields.get(1), "from", 1, uint32Max),
        to: asInteger(fields.get(2), "to", 1, uint32Max),
        ...(epoch !== undefined && { epoch: asInteger(epoch, "epoch", 0, uint32Max) }),
        ...(readFlag(fields, 4, "bare") && { bare: true }),
      };
    }
    case requestTypes.statement:
      allow(3);
      return readStatementRequest(fields);
    case requestTypes.release:
      allow(1);
      return { type: "release", receipt: asBytes(fields.get(1), "receipt", 4_096, 1) };
    default:
      throw new WalletRefusal("unknown-request", `${type}`);
  }
}

function readStatementRequest(fields: CborMap): WalletRequest {
  const fromS = asInteger(fields.get(2), "from", 0, uint32Max);
  return {
    type: "statement",
    meter: asInteger(fields.get(1), "meter", 0, metersMax - 1),
    fromS,
    toS: asInteger(fields.get(3), "to", fromS, uint32Max),
  };
}

function readFlag(fields: CborMap, key: number, name: string): boolean {
  const value = fields.get(key);
  if (value !== undefined && value !== true) throw new WalletRefusal("malformed", `${name} is true or absent`);
  return value === true;
}

function readSeal(fields: CborMap): SealRequest {
  const relative = readFlag(fields, 6, "relative");
  const closes = readFlag(fields, 7, "closes");
  const slotS = asInteger(fields.get(3), "slot", 0, slotSecondsMax);
  const codes = asArray(fields.get(4), "codes", codesMax).map((code) => asInteger(code, "code", 1, codeMax));
  if (codes.length === 0 || codes.some((code, i) => i > 0 && code <= (codes[i - 1] as number)))
    throw new WalletRefusal("malformed", "codes must ascend, and there must be one at least");
  const rows = asArray(fields.get(5), "rows", sealRowsMax).map((item): Row => {
    const [time, status, values] = asArray(item, "row", 3);
    const row = {
      timeS: asInteger(time, "time", 1, uint32Max),
      status: asInteger(status, "status", 0, statusLetters.length - 1),
      values: asArray(values, "values", codesMax).map((value) => asInteger(value, "value", -valueMax, valueMax)),
    };
    if (row.values.length !== (hasValues(row.status) ? codes.length : 0))
      throw new WalletRefusal("malformed", `${row.values.length} values for ${codes.length} codes`);
    return row;
  });
  const first = rows[0];
  if (first === undefined) throw new WalletRefusal("malformed", "no row");
  if (rows.some((row, i) => row.timeS !== first.timeS + i * slotS) || (slotS === 0 && rows.length > 1))
    throw new WalletRefusal("malformed", "the rows' times do not follow each other by the slot");
  return {
    type: "seal",
    meter: asInteger(fields.get(1), "meter", 0, metersMax - 1),
    plan: asInteger(fields.get(2), "plan", 0, 255),
    slotS,
    codes,
    rows,
    ...(relative && { relative }),
    ...(closes && { closes }),
  };
}

export interface SealAnswer {
  /** For each row of the request: the sequence of the record that has it, 0 while it is pending. */
  readonly sequences: readonly number[];
  /** Epochs of those rows whose records are of an earlier epoch: [row, epoch]. */
  readonly earlier?: readonly (readonly [row: number, epoch: number])[];
  /**
   * The records of the running epoch that this request has sealed, as a read gives them, ascending; without those that do not fit
   * into the answer, or must not leave the wallet.
   */
  readonly records?: ReadAnswer["records"];
}

export interface ReadAnswer {
  /** [sequence, record] ascending; fewer than asked for where the answer would be too long or sequences were voided. */
  readonly records: readonly (readonly [sequence: number, record: Uint8Array])[];
  /** Of a bare read: sequences whose records must not leave bare. */
  readonly withheld?: readonly number[];
}

export interface ReleaseAnswer {
  readonly epoch: number;
  /** All of the epoch up to here are released. */
  readonly through: number;
  /** What the verified receipt says is stored of the epoch, released or not: [first, last]. */
  readonly stored?: readonly (readonly [first: number, last: number])[];
}
/** `through`, the runs of a bitmap, or the ranges of a signed receipt. */
const storedRunsMax = 64;

export function encodeAnswer(id: number, fields: CborMap): Uint8Array {
  return encodeCbor([id, fields]);
}

export function encodeRefusal(id: number, refusal: WalletRefusal): Uint8Array {
  return encodeCbor([id, refusal.reason, refusal.message.slice(0, 500)]);
}

/** An answer's fields. Throws {@link WalletRefusal} where the wallet refused, {@link Refusal} where it made no sense. */
export function decodeAnswer(bytes: Uint8Array): { id: number; fields: CborMap | WalletRefusal } {
  const items = asArray(decodeCbor(bytes, walletMessageBytesMax), "answer", 3);
  const id = asInteger(items[0], "id", 0, uint32Max);
  if (items.length === 2) return { id, fields: asMap(items[1], "fields") };
  const reason = asText(items[1], "reason", 40);
  if (!Object.hasOwn(walletRefusals, reason)) throw new Refusal("bad-field", "unknown reason");
  const refusal = new WalletRefusal(reason as WalletRefusalReason);
  refusal.message = asText(items[2], "detail", 500);
  return { id, fields: refusal };
}

export function sealFields(answer: SealAnswer): CborMap {
  const earlier = answer.earlier ?? [];
  return new Map<number, CborValue>([
    [1, [...answer.sequences]],
    ...(earlier.length > 0 ? ([[2, new Map(earlier)]] as const) : []),
    ...(answer.records && answer.records.length > 0 ? ([[3, recordItems(answer.records)]] as const) : []),
  ]);
}

export function readSealAnswer(fields: CborMap): SealAnswer {
  const sequences = asArray(fields.get(1), "sequences", sealRowsMax);
  const earlier = fields.get(2);
  const records = fields.get(3);
  return {
    sequences: sequences.map((item) => asInteger(item, "sequence", 0, uint32Max)),
    ...(earlier !== undefined && {
      earlier: [...asMap(earlier, "earlier")].map(([row, epoch]): [number, number] => [
        asInteger(row, "row", 0, sequences.length - 1),
        asInteger(epoch, "epoch", 0, uint32Max),
      ]),
    }),
    ...(records !== undefined && { records: readRecords(records) }),
  };
}

export function readFields(answer: ReadAnswer): CborMap {
  const { records, withheld = [] } = answer;
  return new Map<number, CborValue>([
    [1, recordItems(records)],
    ...(withheld.length > 0 ? ([[2, [...withheld]]] as [number, CborValue][]) : []),
  ]);
}

function recordItems(records: ReadAnswer["records"]): CborValue {
  return records.map(([sequence, record]) => [sequence, record]);
}

export function readReadAnswer(fields: CborMap): ReadAnswer {
  const withheld = fields.get(2);
  return {
    records: readRecords(fields.get(1)),
    ...(withheld !== undefined && {
      withheld: asArray(withheld, "withheld", readBytesMax).map((item) => asInteger(item, "sequence", 1, uint32Max)),
    }),
  };
}

function readRecords(items: CborValue | undefined): ReadAnswer["records"] {
  return asArray(items, "records", readBytesMax).map((item): [number, Uint8Array] => {
    const [sequence, record] = asArray(item, "record", 2);
    return [asInteger(sequence, "sequence", 1, uint32Max), asBytes(record, "record", readBytesMax, 1)];
  });
}

export function releaseFields(answer: ReleaseAnswer): CborMap {
  return new Map<number, CborValue>([
    [1, answer.epoch],
    [2, answer.through],
    ...(answer.stored && answer.stored.length > 0
      ? ([[3, answer.stored.map(([first, last]) => [first, last])]] as const)
      : []),
  ]);
}

export function readReleaseAnswer(fields: CborMap): ReleaseAnswer {
  const stored = fields.get(3);
  return {
    epoch: asInteger(fields.get(1), "epoch", 0, uint32Max),
    through: asInteger(fields.get(2), "through", 0, uint32Max),
    ...(stored !== undefined && {
      stored: asArray(stored, "stored", storedRunsMax).map((item): [number, number] => {
        const [first, last] = asArray(item, "run", 2);
        return [asInteger(first, "first", 1, uint32Max), asInteger(last, "last", 1, uint32Max)];
      }),
    }),
  };
}

export function enrolFields(request: Uint8Array): CborMap {
  return new Map<number, CborValue>([[1, request]]);
}

export function readEnrolAnswer(fields: CborMap): Uint8Array {
  return asBytes(fields.get(1), "request", 16_384, 1);
}

export function statementFields(statement: Uint8Array): CborMap {
  return new Map<number, CborValue>([[1, statement]]);
}

export function readStatementAnswer(fields: CborMap): Uint8Array {
  return asBytes(fields.get(1), "statement", 4_096, 1);
}
