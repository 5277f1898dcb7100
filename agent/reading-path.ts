/**
 * The path of one reading on the hub, top to bottom: poll → reading → seal → uplink → receipt → release.
 *
 *   pollMeter      a slot ends: the meter is read. Whatever comes of it, a row comes of it: values, or a status.
 *   sealDue        rows go to the wallet. POINT OF NO RETURN: when wallet.seal answers, they are on its disk.
 *   forward        sealed records are read back and published (forwarder.ts, mqtt-uplink.ts)
 *   takeReceipt    a full node's receipt goes to the wallet, which verifies it and releases what it covers.
 *
 * The agent keeps nothing durable: after a restart it asks the wallet what is sealed and what is released, and goes on.
 */

import type { ModbusLine } from "../drivers/modbus/line.ts";
import { type MeterReading, readMeter } from "../drivers/modbus/meter-reader.ts";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { createRtuLine } from "../drivers/modbus/rtu-line.ts";
import { createTcpLine } from "../drivers/modbus/tcp-line.ts";
import { openSerialPort } from "../drivers/serial/serial-port.ts";
import { bitsPerCharacter, describeFraming } from "../drivers/serial/serial-settings.ts";
import type { Clock } from "../platform/clock.ts";
import { quantityOfCode } from "../protocol/quantity.ts";
import { hasValues, statuses, statusLetters } from "../protocol/reading-status.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import type { LineConfiguration, MeterConfiguration } from "./configuration.ts";
import type { AgentEvent } from "./event.ts";
import { pause, Rest } from "./pause.ts";
import { type Sample, SampleBuffer } from "./sample-buffer.ts";
import { type Due, nextDue } from "./schedule.ts";
import { type WalletClient, WalletUnavailable } from "./wallet-client.ts";

/** How soon rows are tried again after the wallet refused them for now, or was away. */
const sealRetryMs = 1_000;

/** A meter as the agent holds it. */
export interface PolledMeter {
  readonly configuration: MeterConfiguration;
  readonly profile: MeterProfile;
  readonly codes: readonly number[];
  readonly line: ModbusLine;
  readonly buffer: SampleBuffer;
  /** Woken when there may be something to seal. */
  readonly sealing: Rest;
  /** End of the last slot that a row was made for; undefined before the first. */
  lastS: number | undefined;
  lastStatus: string;
  missed: number;
}

export interface ReadingPathOptions {
  readonly wallet: WalletClient;
  readonly sealEveryS: number;
  readonly clock: Clock;
  readonly emit: (event: AgentEvent) => void;
  /** Sealed sequences, as soon as the wallet has answered. */
  readonly onSealed: (sequence: number) => void;
}

/** The line of a configuration; opened at the first read, and again by itself after each loss. */
export function lineOf(configuration: LineConfiguration): ModbusLine {
  const { serial, tcp } = configuration;
  if (tcp) return createTcpLine(tcp);
  if (!serial) throw new TypeError(`line ${configuration.name} has neither serial nor tcp`);
  return createRtuLine({
    description: `${serial.path} at ${describeFraming(serial)}`,
    openTransport: () => openSerialPort(serial),
    baud: serial.baud,
    bitsPerCharacter: bitsPerCharacter(serial),
  });
}

export function polledMeter(configuration: MeterConfiguration, profile: MeterProfile, line: ModbusLine): PolledMeter {
  return {
    configuration,
    profile,
    codes: configuration.codes ?? profile.defaultCodes,
    line,
    buffer: new SampleBuffer(configuration.intervalS),
    sealing: new Rest(),
    lastS: undefined,
    lastStatus: "",
    missed: 0,
  };
}

/** Polls a meter at its slots until `signal` aborts; each slot gives a row in the meter's buffer. */
export async function pollMeter(meter: PolledMeter, options: ReadingPathOptions, signal: AbortSignal): Promise<void> {
  const { clock, emit } = options;
  const { intervalS } = meter.configuration;
  while (!signal.aborted) {
    const due = nextDue(meter.lastS, clock.wallMs(), intervalS);
    await pause(Math.max(0, due.timeS * 1_000 - clock.wallMs()), signal);
    if (signal.aborted) return;
    // A timer may fire a little early; the row's time is the slot's end all the same.
    if (clock.wallMs() < due.timeS * 1_000 - 20) continue;
    keepGap(meter, due, options);
    const reading = await readMeter(meter.line, {
      profile: meter.profile,
      unit: meter.configuration.unit,
      codes: meter.codes,
      deadlineMs: Math.max(500, intervalS * 1_000 - 100),
    });
    meter.lastS = due.timeS;
    keep(meter, sampleOf(reading, due.timeS), options);
    emit(readingEvent(meter, reading, due.timeS));
    meter.sealing.wake();
  }
}

/** Rows with status N for slots that passed unread. */
function keepGap(meter: PolledMeter, due: Due, options: ReadingPathOptions): void {
  meter.missed += due.missed;
  for (let ago = due.missed; ago > 0; ago--) {
    const timeS = due.timeS - ago * meter.configuration.intervalS;
    keep(meter, { codes: meter.codes, row: { timeS, status: statuses.notPresent, values: [] } }, options);
  }
}

/**
 * After a start: a row with status N for the slot before the first one, where the wallet's last row of the meter is older.
 * One row says it all: between it and its predecessor nothing was read.
 */
export function keepStartGap(meter: PolledMeter, lastSealedS: number, options: ReadingPathOptions): void {
  const { intervalS } = meter.configuration;
  const { timeS } = nextDue(undefined, options.clock.wallMs(), intervalS);
  if (lastSealedS === 0 || timeS - intervalS <= lastSealedS) {
    if (lastSealedS > 0 && lastSealedS >= timeS && lastSealedS - timeS < intervalS) meter.lastS = lastSealedS;
    return;
  }
  const row = { timeS: timeS - intervalS, status: statuses.notPresent, values: [] };
  keep(meter, { codes: meter.codes, row }, options);
}

function keep(meter: PolledMeter, sample: Sample, { emit }: ReadingPathOptions): void {
  const rows = meter.buffer.push(sample);
  if (rows > 0)
    emit({
      event: "lost",
      meter: meter.configuration.index,
      rows,
      detail: "the wallet was away for too long; status N says so",
    });
}

/** A reading as a row. What the driver could not vouch for has no values, whatever its status: F says so. */
function sampleOf(reading: MeterReading, timeS: number): Sample {
  const { codes, values } = reading;
  if (reading.status === statuses.good) return { codes, row: { timeS, status: statuses.good, values } };
  const status = hasValues(reading.status) ? statuses.readError : reading.status;
  return { codes, row: { timeS, status, values: [] } };
}

function readingEvent(meter: PolledMeter, reading: MeterReading, timeS: number): AgentEvent {
  const { index, name } = meter.configuration;
  const status = statusLetters[sampleOf(reading, timeS).row.status] ?? "E";
  meter.lastStatus = status;
  const pairs = reading.codes.map((code, i): [string, number] => [
    quantityOfCode(code)?.name ?? `code-${code}`,
    reading.values[i] ?? 0,
  ]);
  const values = reading.status === statuses.good ? Object.fromEntries(pairs) : {};
  const detail = reading.detail === undefined ? {} : { detail: reading.detail };
  return { event: "reading", meter: index, name, timeS, status, values, ...detail };
}

/** Seals a meter's rows as they fall due, beside the polling: a wallet that is slow or away delays no reading. */
export async function sealRows(meter: PolledMeter, options: ReadingPathOptions, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await sealDue(meter, options);
    await meter.sealing.rest(sealRetryMs, signal);
  }
}

/** Seals what is due of a meter's rows. Rows stay in the buffer until the wallet has answered. */
export async function sealDue(meter: PolledMeter, options: ReadingPathOptions, always = false): Promise<void> {
  const { wallet, sealEveryS, emit, onSealed } = options;
  const { index, intervalS } = meter.configuration;
  while (meter.buffer.length > 0 && (always || meter.buffer.isDue(sealEveryS))) {
    const head = meter.buffer.head();
    const rows = head.map((sample) => sample.row);
    try {
      const answer = await wallet.seal({
        meter: index,
        plan: 0,
        slotS: intervalS,
        codes: (head[0] as Sample).codes,
        rows,
      });
      // Point of no return: the rows are on the wallet's disk. What follows can be repeated at will.
      meter.buffer.drop(head);
      for (const sequence of new Set(answer.sequences)) {
        const count = answer.sequences.filter((other) => other === sequence).length;
        if (sequence > 0) emit({ event: "sealed", sequence, meter: index, rows: count });
        onSealed(sequence);
      }
    } catch (error) {
      if (error instanceof WalletUnavailable) return; // the rows wait for the wallet's return
      if (!(error instanceof WalletRefusal)) throw error;
      emit({ event: "refused", by: "wallet", reason: error.reason, detail: error.message });
      if (error.reason === "ring-full" || error.reason === "rate-exceeded") return; // passes by itself, or by a receipt
      if (head.length > 1) {
        // One row is at fault: each by itself, so that the others are not lost with it.
        await sealOneByOne(meter, head, options);
        continue;
      }
      meter.buffer.drop(head);
      emit({ event: "lost", meter: index, rows: head.length, detail: error.message });
    }
  }
}

async function sealOneByOne(
  meter: PolledMeter,
  samples: readonly Sample[],
  options: ReadingPathOptions,
): Promise<void> {
  const { wallet, emit, onSealed } = options;
  const { index, intervalS } = meter.configuration;
  for (const sample of samples) {
    try {
      const answer = await wallet.seal({
        meter: index,
        plan: 0,
        slotS: intervalS,
        codes: sample.codes,
        rows: [sample.row],
      });
      for (const sequence of answer.sequences) onSealed(sequence);
    } catch (error) {
      if (error instanceof WalletUnavailable) return;
      if (!(error instanceof WalletRefusal)) throw error;
      if (error.reason === "ring-full" || error.reason === "rate-exceeded") return;
      emit({ event: "lost", meter: index, rows: 1, detail: error.message });
    }
    meter.buffer.drop([sample]);
  }
}
