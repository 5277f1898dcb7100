/**
 * The path of one reading on the hub, top to bottom: poll → reading → seal → uplink → receipt → release.
 *
 *   pollMeter      a slot ends: the meter is read. Whatever comes of it, a row comes of it: values, or a status.
 *   sealDue        rows go to the wallet (row-sealing.ts). POINT OF NO RETURN: when wallet.seal answers, they are on its disk.
 *   forward        sealed records are read back and published (forwarder.ts, mqtt-uplink.ts)
 *   takeReceipt    a full node's receipt goes to the wallet, which verifies it and releases what it covers.
 *
 * The agent keeps nothing durable: after a restart it asks the wallet what is sealed and what is released, and goes on.
 */

import type { ModbusLine } from "../drivers/modbus/line.ts";
import type { MeterReading } from "../drivers/modbus/meter-reader.ts";
import { ModbusMeter } from "../drivers/modbus/modbus-meter.ts";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { createRtuLine } from "../drivers/modbus/rtu-line.ts";
import { createRtuTcpLine, createTcpLine } from "../drivers/modbus/tcp-line.ts";
import { serialPortOpener } from "../drivers/serial/port-identity.ts";
import { bitsPerCharacter, describeFraming } from "../drivers/serial/serial-settings.ts";
import { type Clock, isSet } from "../platform/clock.ts";
import { quantityOfCode } from "../protocol/quantity.ts";
import { hasValues, statuses, statusLetters } from "../protocol/reading-status.ts";
import type { LineConfiguration, MeterConfiguration } from "./configuration.ts";
import type { AgentEvent } from "./event.ts";
import { LineTurns, type TurnMember } from "./line-turns.ts";
import { pause, Rest } from "./pause.ts";
import {
  fullPlan,
  keepRow,
  lose,
  type MeterRows,
  meterRows,
  type RowPlan,
  type SealingOptions,
  sealDue,
} from "./row-sealing.ts";
import type { Sample } from "./sample-buffer.ts";
import { type Due, isLate, nextDue, slotEndFrom, UnitRest } from "./schedule.ts";

/** How soon rows are tried again after the wallet refused them for now, or was away. */
const sealRetryMs = 1_000;
/** The wall clock is looked at so often while a slot's end is waited for: it may be set meanwhile. */
const clockCheckMs = 10_000;
/** A reading may take so long even where the interval is shorter: a slow meter has fewer readings, not none. */
const slowReadingMs = 5_000;
/** A line that could not be had within this time kept nobody else waiting. */
const quickFailureMs = 1_000;

/** A meter as the agent holds it. */
export interface PolledMeter {
  readonly configuration: MeterConfiguration;
  readonly modbus: ModbusMeter;
  /** What is wanted of it, less what it turned out not to have. */
  codes: readonly number[];
  /** It was read once: `codes` are what it has. */
  isKnown: boolean;
  /** A slot of the energies went by without an answer: they are read with the next one. */
  isFullOwed: boolean;
  /** What of its readings is sealed, for each plan in use. */
  readonly rows: readonly MeterRows[];
  /** Woken when there may be something to seal. */
  readonly sealing: Rest;
  readonly rest: UnitRest;
  readonly turns: LineTurns;
  readonly turn: TurnMember;
  /** End of the last slot that is dealt with; slots after it are due. Undefined before the start. */
  lastS: number | undefined;
  /** The wall clock is not set: slots count by the seconds since the boot. */
  isRelative: boolean;
  lastReading: MeterReading | undefined;
  /** OCMF letter of the last row; empty before the first. */
  lastStatus: string;
  /** Slots that passed unread, readings that ended too late after their slot. */
  missed: number;
  late: number;
  longestOffsetMs: number;
}

export interface ReadingPathOptions extends SealingOptions {
  readonly clock: Clock;
}

/** The line of a configuration; opened at the first read, and again by itself after each loss. */
export function lineOf(configuration: LineConfiguration): ModbusLine {
  const { serial, tcp } = configuration;
  if (tcp) return tcp.framing === "rtu" ? createRtuTcpLine(tcp) : createTcpLine(tcp);
  if (!serial) throw new TypeError(`line ${configuration.name} has neither serial nor tcp`);
  return createRtuLine({
    description: `${serial.path} at ${describeFraming(serial)}`,
    openTransport: serialPortOpener(serial),
    baud: serial.baud,
    bitsPerCharacter: bitsPerCharacter(serial),
  });
}

/**
 * @param turns shared by the meters of one line
 * @param plans what of its readings is sealed
 */
export function polledMeter(
  configuration: MeterConfiguration,
  profile: MeterProfile,
  line: ModbusLine,
  turns = new LineTurns(),
  plans: readonly RowPlan[] = [fullPlan],
): PolledMeter {
  return {
    configuration,
    modbus: new ModbusMeter(line, profile, configuration.unit),
    codes: configuration.codes ?? profile.defaultCodes,
    isKnown: false,
    isFullOwed: false,
    rows: plans.map((plan) => meterRows(configuration.index, configuration.intervalS, plan)),
    sealing: new Rest(),
    rest: new UnitRest(),
    turns,
    turn: turns.join(),
    lastS: undefined,
    isRelative: false,
    lastReading: undefined,
    lastStatus: "",
    missed: 0,
    late: 0,
    longestOffsetMs: 0,
  };
}

/** Polls a meter at its slots until `signal` aborts; each slot gives a row in the meter's buffer. */
export async function pollMeter(meter: PolledMeter, options: ReadingPathOptions, signal: AbortSignal): Promise<void> {
  const { clock, emit } = options;
  const { configuration } = meter;
  const { intervalS } = configuration;
  while (!signal.aborted) {
    const nowMs = timeOf(meter, clock);
    meter.lastS ??= slotEndFrom(nowMs, intervalS) - intervalS;
    const due = nextDue(meter.lastS, nowMs, intervalS);
    const waitMs = due.timeS * 1_000 - nowMs;
    meter.turn.nextMs = clock.monotonicMs() + waitMs;
    if (waitMs > 0) {
      await pause(Math.min(waitMs, clockCheckMs), signal);
      continue;
    }
    if (hasFullSlot(configuration, meter.lastS, due.timeS)) meter.isFullOwed = true;
    keepGap(meter, due, options);
    const reading = await readOrRest(meter, due, clock, signal);
    const offsetMs = timeOf(meter, clock) - due.timeS * 1_000;
    // The line was closed under the reading because the agent ends. The slot is as unread as those that follow.
    if (signal.aborted && reading.status === statuses.disconnected) return;
    meter.lastS = due.timeS;
    keep(meter, { ...sampleOf(reading, due.timeS), ...(meter.isRelative && { relative: true }) }, options);
    if (reading.status === statuses.good) {
      if (isLate(offsetMs, intervalS)) meter.late++;
      meter.longestOffsetMs = Math.max(meter.longestOffsetMs, offsetMs);
    }
    emit(readingEvent(meter, reading, due.timeS, offsetMs));
    meter.sealing.wake();
  }
}

/** Milliseconds of the clock by which a meter is read: since the boot as long as the wall clock is not set. */
function timeOf(meter: PolledMeter, clock: Clock): number {
  const wallMs = clock.wallMs();
  const isRelative = !isSet(wallMs);
  if (isRelative !== meter.isRelative) {
    meter.isRelative = isRelative;
    meter.lastS = undefined; // slots of another time begin; what was read by the one before is due now
    meter.sealing.wake();
  }
  return isRelative ? clock.monotonicMs() : wallMs;
}

/**
 * Reads the meter; where it rests, or a line that others need has no time for one that does not answer, it is not asked, and
 * the reading says again what the last one said.
 */
async function readOrRest(meter: PolledMeter, due: Due, clock: Clock, signal: AbortSignal): Promise<MeterReading> {
  const { configuration, modbus, rest, lastReading, turns, turn } = meter;
  const { intervalS } = configuration;
  if (lastReading && rest.isResting(clock.monotonicMs())) return lastReading;
  if (lastReading && rest.isSuspect) {
    const untilMs = clock.monotonicMs() + (intervalS * 1_000) / 2;
    const mayAsk = await turns.suspectsTurn(turn, holdMs(modbus.profile), untilMs, clock.monotonicMs, signal);
    if (!mayAsk) return lastReading;
  }
  const vainBefore = vainRequests(modbus);
  const startMs = clock.monotonicMs();
  const deadlineMs = Math.max(slowReadingMs, intervalS * 1_000);
  const isFull = isFullNow(meter, due.timeS);
  turn.isReading = true;
  const reading = await modbus.read({ deadlineMs, ...wantedOf(meter, isFull) }).finally(() => {
    turn.isReading = false;
  });
  // A unit whose turn on the line never came let nobody wait: others are to blame, and it does not rest for them.
  const vain =
    (isNoAnswer(reading.status) && vainRequests(modbus) > vainBefore) ||
    (reading.status === statuses.disconnected && clock.monotonicMs() - startMs > quickFailureMs);
  if (vain) rest.vain(clock.monotonicMs());
  else if (reading.status !== statuses.timeout) rest.answered();
  turn.isSuspect = rest.isSuspect;
  if (reading.status === statuses.good && isFull) {
    meter.codes = reading.codes;
    meter.isKnown = true;
  }
  // A meter that did answer is not asked for all of it in every slot because something in it is wrong.
  const isUnanswered = reading.status === statuses.timeout || reading.status === statuses.disconnected;
  if (isFull && !isUnanswered) meter.isFullOwed = false;
  meter.lastReading = reading;
  return reading;
}

/** A unit that answers so that nobody can understand it holds up its line as one that is silent. */
function isNoAnswer(status: number): boolean {
  return status === statuses.timeout || status === statuses.readError;
}

/** Requests to the meter that held the line until their deadline. */
function vainRequests({ line, unit }: ModbusMeter): number {
  const counters = line.counters.get(unit);
  return counters === undefined ? 0 : counters.timeouts + counters.crcErrors + counters.wrongReplies;
}

/** How long a unit that does not answer keeps a line from the others. */
function holdMs({ timeoutMs, slowestAnswerMs, gapMs }: MeterProfile): number {
  return gapMs + Math.max(timeoutMs, slowestAnswerMs) + 100;
}

/** Whether a slot in which the registers that only rise (energies) are read ends after `lastS` and by `timeS`. */
function hasFullSlot(
  { intervalS, energyIntervalS = intervalS }: MeterConfiguration,
  lastS: number,
  timeS: number,
): boolean {
  return Math.floor(timeS / energyIntervalS) > Math.floor(lastS / energyIntervalS);
}

/** Whether all is read in that slot: what is owed, and until it is known what the meter has. */
function isFullNow({ configuration, isKnown, isFullOwed }: PolledMeter, timeS: number): boolean {
  return !isKnown || isFullOwed || hasFullSlot(configuration, timeS - configuration.intervalS, timeS);
}

/** What a meter is asked for. What the configuration does not name is not asked for by name: it may be missing. */
function wantedOf(meter: PolledMeter, isFull: boolean): { codes?: readonly number[]; only?: readonly number[] } {
  const { codes: named } = meter.configuration;
  const codes = fastCodes(meter);
  if (isFull || codes.length === 0) return named === undefined ? {} : { codes: named };
  return named === undefined ? { only: codes } : { codes };
}

function fastCodes({ codes }: PolledMeter): readonly number[] {
  return codes.filter((code) => quantityOfCode(code)?.cumulative !== true);
}

/** Rows with status N for slots that passed unread. */
function keepGap(meter: PolledMeter, due: Due, options: ReadingPathOptions): void {
  meter.missed += due.missed;
  for (let ago = due.missed; ago > 0; ago--) {
    const timeS = due.timeS - ago * meter.configuration.intervalS;
    keep(meter, absent(meter, timeS), options);
  }
}

/**
 * After a start: a row with status N for the slot before the first one, where the wallet's last row of the meter is older.
 * One row says it all: between it and its predecessor nothing was read.
 */
export function keepStartGap(meter: PolledMeter, lastSealedS: number, options: ReadingPathOptions): void {
  const { intervalS } = meter.configuration;
  if (lastSealedS === 0 || !isSet(options.clock.wallMs())) return;
  const beforeS = slotEndFrom(options.clock.wallMs(), intervalS) - intervalS;
  meter.lastS = Math.max(beforeS, lastSealedS);
  if (beforeS <= lastSealedS) return;
  keep(meter, absent(meter, beforeS), options);
}

/** A slot that passed unread. */
function absent(meter: PolledMeter, timeS: number): Sample {
  const { configuration, isKnown, isRelative } = meter;
  const isFull = !isKnown || hasFullSlot(configuration, timeS - configuration.intervalS, timeS);
  const codes = isFull ? meter.codes : fastCodes(meter);
  return { codes, row: { timeS, status: statuses.notPresent, values: [] }, ...(isRelative && { relative: true }) };
}

function keep(meter: PolledMeter, sample: Sample, { emit }: ReadingPathOptions): void {
  for (const rows of meter.rows) {
    const lost = keepRow(rows, sample);
    if (lost > 0) lose(rows, lost, "the wallet was away for too long; status N says so", emit);
  }
}

/** A reading as a row. What the driver could not vouch for has no values, whatever its status: F says so. */
function sampleOf(reading: MeterReading, timeS: number): Sample {
  const { codes, values } = reading;
  if (reading.status === statuses.good) return { codes, row: { timeS, status: statuses.good, values } };
  const status = hasValues(reading.status) ? statuses.readError : reading.status;
  return { codes, row: { timeS, status, values: [] } };
}

function readingEvent(meter: PolledMeter, reading: MeterReading, timeS: number, offsetMs: number): AgentEvent {
  const { index, name } = meter.configuration;
  const status = statusLetters[sampleOf(reading, timeS).row.status] ?? "E";
  meter.lastStatus = status;
  const pairs = reading.codes.map((code, i): [string, number] => [
    quantityOfCode(code)?.name ?? `code-${code}`,
    reading.values[i] ?? 0,
  ]);
  const values = reading.status === statuses.good ? Object.fromEntries(pairs) : {};
  const detail = reading.detail === undefined ? {} : { detail: reading.detail };
  const relative = meter.isRelative ? { relative: true as const } : {};
  return { event: "reading", meter: index, name, timeS, ...relative, status, values, offsetMs, ...detail };
}

/** Seals a meter's rows as they fall due, beside the polling: a wallet that is slow or away delays no reading. */
export async function sealRows(meter: PolledMeter, options: ReadingPathOptions, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    for (const rows of meter.rows) await sealDue(rows, options);
    await meter.sealing.rest(sealRetryMs, signal);
  }
}
