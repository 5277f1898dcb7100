/**
 * What the events of the chain say of the wallet itself: the software that ran last, the boot that relative times count from,
 * meters that were replaced, the TPM's counter, what was dropped. Carried from segment to segment in the journal's state.
 */
import { type EventContent, eventCodes, metersMax } from "../protocol/record.ts";
import { bootIdBytes, type HistoryState } from "./journal-body.ts";

/** Characters of the software id that are remembered. */
const softwareIdMax = 128;

export class JournalHistory {
  #state: HistoryState = { installations: new Map() };

  get state(): HistoryState {
    return this.#state;
  }

  set({ relative, lastStarted, installations, counter, dropped }: HistoryState): void {
    this.#state = {
      installations,
      ...(relative && { relative }),
      ...(lastStarted && { lastStarted }),
      ...(counter !== undefined && { counter }),
      ...(dropped && { dropped }),
    };
  }

  addRecord({ events }: EventContent): void {
    for (const [code, ...parameters] of events) this.#add(code, parameters);
  }

  /** Parameters that are not what this version seals are left aside: the record stays what it is. */
  #add(code: number, [first, second, third, fourth]: readonly unknown[]): void {
    const state = this.#state;
    if (code === eventCodes.started && typeof first === "string" && isBytes(second, 32)) {
      const lastStarted = { softwareId: first.slice(0, softwareIdMax), policyDigest: second };
      this.#state = { ...state, lastStarted, ...(isCount(third) && { counter: third }) };
    } else if (code === eventCodes.clockStepped && isCount(second) && isBytes(fourth, bootIdBytes))
      this.#state = { ...state, relative: { generation: second, bootId: fourth } };
    else if (code === eventCodes.meterReplaced && isCount(first) && first < metersMax && isCount(third))
      this.#state = { ...state, installations: new Map([...state.installations, [first, third]]) };
    else if (code === eventCodes.counterRaised && isCount(first)) this.#state = { ...state, counter: first };
    else if (code === eventCodes.dropped && isCount(first) && isCount(third))
      this.#state = { ...state, dropped: { epoch: first, sequence: third } };
  }
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && value >= 0;
}

function isBytes(value: unknown, length: number): value is Uint8Array {
  return value instanceof Uint8Array && value.length === length;
}
