/**
 * A period statement: what a meter's registers showed at the ends of a period, signed by the device's key, so that a bill can
 * be proven without the load curve. Layout: protocol/README.md and ecp.cddl.
 */
import { contentTypes, decodeCose, digestOf, kidBytes, type Sha256, type Sign, signCose } from "./cose-sign1.ts";
import { type CborMap, type CborValue, decodeCbor, encodeCbor } from "./deterministic-cbor.ts";
import { asArray, asBytes, asInteger, asMap, uint32Max } from "./field.ts";
import { clockStateLetters } from "./reading-status.ts";
import { codeMax, codesMax, metersMax, valueMax } from "./record.ts";
import { Refusal } from "./refusal.ts";

export const statementVersion = 1;
export const statementBytesMax = 4_096;

/** A record by its place in the device's chain. */
export interface RecordPlace {
  readonly epoch: number;
  readonly sequence: number;
}

export interface StatedRegister {
  readonly code: number;
  /** Stand at the end of the period, in the quantity's unit. */
  readonly stand: number;
  /** What the register rose by in the period. */
  readonly rise: number;
}

export interface Statement {
  /** kid of the device's enrolment key. */
  readonly device: Uint8Array;
  readonly meter: number;
  /** Unix seconds of the rows that the stands are of: the last good ones at or before what was asked for. */
  readonly fromS: number;
  readonly toS: number;
  /** Ascending by code. */
  readonly registers: readonly StatedRegister[];
  /** The records with the two rows. */
  readonly first: RecordPlace;
  readonly last: RecordPlace;
  /** When it was signed. */
  readonly timeS: number;
  readonly clockState: number;
}

/** The signed bytes, tagged, with `kid`. Throws Refusal on a statement that nobody would take. */
export function signStatement(statement: Statement, sign: Sign, kid: Uint8Array): Uint8Array {
  const payload: CborMap = new Map<number, CborValue>([
    [1, statementVersion],
    [2, statement.device],
    [3, statement.meter],
    [4, statement.fromS],
    [5, statement.toS],
    [6, statement.registers.map(({ code, stand, rise }) => [code, stand, rise])],
    [7, [statement.first.epoch, statement.first.sequence]],
    [8, [statement.last.epoch, statement.last.sequence]],
    [9, statement.timeS],
  ]);
  if (statement.clockState !== 0) payload.set(10, statement.clockState);
  const bytes = encodeCbor(payload);
  readStatement(bytes);
  return signCose(contentTypes.statement, bytes, sign, kid);
}

/** Takes a statement apart; its signature is not checked yet. Throws {@link Refusal}. */
export function decodeStatement(bytes: Uint8Array, sha256: Sha256) {
  const cose = decodeCose(bytes, contentTypes.statement, statementBytesMax);
  return { cose, content: readStatement(cose.payload), digest: digestOf(cose, sha256) };
}

function readStatement(bytes: Uint8Array): Statement {
  const payload = asMap(decodeCbor(bytes, statementBytesMax), "payload");
  const version = asInteger(payload.get(1), "version", 0, uint32Max);
  if (version !== statementVersion) throw new Refusal("unsupported-version", `${version}`);
  const fromS = asInteger(payload.get(4), "from", 0, uint32Max);
  const clockState = payload.get(10);
  const registers = asArray(payload.get(6), "registers", codesMax).map((item) => {
    const [code, stand, rise] = asArray(item, "register", 3);
    const register = {
      code: asInteger(code, "code", 1, codeMax),
      stand: asInteger(stand, "stand", -valueMax, valueMax),
      rise: asInteger(rise, "rise", 0, 2 * valueMax),
    };
    if (register.stand - register.rise < -valueMax) throw new Refusal("bad-field", "a stand below ±(2^52-1) at first");
    return register;
  });
  if (registers.length === 0 || registers.some(({ code }, i) => i > 0 && code <= (registers[i - 1]?.code ?? 0)))
    throw new Refusal("bad-field", "registers ascend by code, and there is one at least");
  return {
    device: asBytes(payload.get(2), "device", kidBytes),
    meter: asInteger(payload.get(3), "meter", 0, metersMax - 1),
    fromS,
    toS: asInteger(payload.get(5), "to", fromS, uint32Max),
    registers,
    first: readPlace(payload.get(7), "first"),
    last: readPlace(payload.get(8), "last"),
    timeS: asInteger(payload.get(9), "time", 0, uint32Max),
    clockState: clockState === undefined ? 0 : asInteger(clockState, "clock state", 1, clockStateLetters.length - 1),
  };
}

function readPlace(value: CborValue | undefined, name: string): RecordPlace {
  const [epoch, sequence] = asArray(value, name, 2);
  return {
    epoch: asInteger(epoch, `${name} epoch`, 0, uint32Max),
    sequence: asInteger(sequence, `${name} sequence`, 1, uint32Max),
  };
}
