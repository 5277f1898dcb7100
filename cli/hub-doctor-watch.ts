/** Polls the meters of one line for a while, and gives what was seen of each. */
import type { LineConfiguration } from "../agent/configuration.ts";
import { pause } from "../agent/pause.ts";
import { lineOf } from "../agent/reading-path.ts";
import { DriverError } from "../drivers/failure.ts";
import type { WatchedLine, WatchedUnit } from "../drivers/modbus/bus-diagnosis.ts";
import type { ModbusLine, UnitCounters } from "../drivers/modbus/line.ts";
import { searchLine } from "../drivers/modbus/meter-search.ts";
import { type LineSettings, searchBauds } from "../drivers/modbus/meter-search-plan.ts";
import { ModbusMeter } from "../drivers/modbus/modbus-meter.ts";
import type { MeterProfile, Parity } from "../drivers/modbus/profile.ts";
import { RtuParser, requestLength } from "../drivers/modbus/rtu-frame.ts";
import { openSerialPort } from "../drivers/serial/serial-port.ts";
import type { SerialSettings } from "../drivers/serial/serial-settings.ts";
import { statuses } from "../protocol/reading-status.ts";

export interface WatchedMeter {
  readonly name: string;
  readonly unit: number;
  readonly profile: MeterProfile;
}

/** Share of the time in which the line is polled as fast as it allows; the rest is for longer pauses, where there is reason to. */
const busyShare = 0.5;
const listenMs = 1_500;
/** Added to each profile's gap in the calm part. */
const calmGapMs = 200;
/** A line on which nothing answered in so many rounds is not polled any longer. */
const vainRoundsMax = 3;
/** How long an answer at another speed is waited for. */
const otherSettingTimeoutMs = 250;

/** Never throws for a bus that fails: that is what it is to tell. */
export async function watchLine(
  line: LineConfiguration,
  meters: readonly WatchedMeter[],
  forMs: number,
  signal: AbortSignal,
): Promise<WatchedLine> {
  const endMs = performance.now() + forMs;
  const kind = line.serial ? "rtu" : "tcp";
  const bus = lineOf(line);
  let uninvited = { bytes: 0, requests: 0 };
  const state = { failure: undefined as string | undefined };
  const base = { kind, description: bus.description } as const;
  const result = (units: readonly WatchedUnit[], more: Partial<WatchedLine> = {}): WatchedLine => {
    const failure = state.failure === undefined ? {} : { failure: state.failure };
    return { ...base, uninvited, triedSettings: 0, units, ...failure, ...more };
  };
  try {
    if (line.serial) uninvited = await listen(line.serial, Math.min(listenMs, forMs / 4), signal);
    await bus.open();
    const refusals = new Map<number, string>();
    const busy = await poll(bus, meters, endMs - (1 - busyShare) * forMs, { signal, gapMs: 0, refusals, state });
    const units = (calm?: ReadonlyMap<number, UnitCounters>): WatchedUnit[] =>
      meters.map(({ unit, name, profile }) => ({
        ...{ unit, name, slowestAnswerMs: profile.slowestAnswerMs, busy: busy.get(unit) ?? none() },
        ...(calm?.get(unit) && { calm: calm.get(unit)! }),
        ...(bus.latencyOf(unit) && { latency: bus.latencyOf(unit)! }),
        ...(refusals.has(unit) && { refusal: refusals.get(unit)! }),
      }));
    const all = [...busy.values()];
    if (all.every(({ ok, exceptions }) => ok + exceptions === 0)) {
      await bus.close();
      if (!line.serial || state.failure !== undefined || signal.aborted) return result(units());
      return result(units(), await trySettings(line.serial, meters, signal));
    }
    const faulty = meters.filter(({ unit }) => {
      const { timeouts, crcErrors, ok, exceptions } = busy.get(unit) ?? none();
      return timeouts + crcErrors > 0 && ok + exceptions > 0;
    });
    if (faulty.length === 0 || signal.aborted) return result(units());
    return result(units(await poll(bus, faulty, endMs, { signal, gapMs: calmGapMs, refusals, state })));
  } catch (error) {
    if (!(error instanceof DriverError)) throw error;
    state.failure = error.message;
    return result(
      meters.map(({ unit, name, profile }) => ({ unit, name, busy: none(), slowestAnswerMs: profile.slowestAnswerMs })),
    );
  } finally {
    await bus.close();
  }
}

/** What comes while nobody here asks. @throws DriverError port-… */
async function listen(
  serial: SerialSettings,
  forMs: number,
  signal: AbortSignal,
): Promise<{ bytes: number; requests: number }> {
  const port = await openSerialPort(serial);
  const heard = { bytes: 0, requests: 0 };
  const parser = new RtuParser(requestLength);
  port.onClosed(() => {});
  port.onData((bytes) => {
    heard.bytes += bytes.length;
    heard.requests += parser.push(bytes).length;
  });
  await pause(forMs, signal);
  await port.close();
  return heard;
}

interface PollOptions {
  readonly signal: AbortSignal;
  /** Added to the profile's. */
  readonly gapMs: number;
  readonly refusals: Map<number, string>;
  readonly state: { failure: string | undefined };
}

/** Reads one meter after the other until the time is over; gives what each one's counters grew by. */
async function poll(
  bus: ModbusLine,
  meters: readonly WatchedMeter[],
  endMs: number,
  { signal, gapMs, refusals, state }: PollOptions,
): Promise<Map<number, UnitCounters>> {
  const before = new Map(meters.map(({ unit }) => [unit, { ...(bus.counters.get(unit) ?? none()) }]));
  const polled = meters.map(
    ({ profile, unit }) => new ModbusMeter(bus, { ...profile, gapMs: profile.gapMs + gapMs }, unit),
  );
  for (let round = 1; performance.now() < endMs && !signal.aborted; round++) {
    for (const meter of polled) {
      if (signal.aborted) break;
      const deadlineMs = Math.max(1_000, endMs - performance.now());
      const { status, detail } = await meter.read({ deadlineMs });
      if (status === statuses.disconnected) {
        state.failure = detail;
        return grown(bus, before);
      }
      if (status === statuses.incompatible && detail !== undefined) refusals.set(meter.unit, detail);
      else if (status === statuses.good) refusals.delete(meter.unit);
    }
    const heard = [...bus.counters.values()].some(({ ok, exceptions }) => ok + exceptions > 0);
    if (round >= vainRoundsMax && !heard) break;
  }
  return grown(bus, before);
}

function grown(bus: ModbusLine, before: ReadonlyMap<number, UnitCounters>): Map<number, UnitCounters> {
  return new Map(
    [...before].map(([unit, then]) => {
      const now = bus.counters.get(unit) ?? none();
      const keys = Object.keys(then) as (keyof UnitCounters)[];
      return [unit, Object.fromEntries(keys.map((key) => [key, now[key] - then[key]])) as unknown as UnitCounters];
    }),
  );
}

/** Asks the configured units at every other speed and parity, the likeliest first. */
async function trySettings(
  serial: SerialSettings,
  meters: readonly WatchedMeter[],
  signal: AbortSignal,
): Promise<Pick<WatchedLine, "triedSettings"> & { otherSetting?: LineSettings }> {
  const parities: readonly Parity[] = ["none", "even", "odd"];
  const settings = parities
    .flatMap((parity) => searchBauds.map((baud): LineSettings => ({ baud, parity, stopBits: 1 })))
    .filter(({ baud, parity }) => baud !== serial.baud || parity !== (serial.parity ?? "none"));
  const units = [...new Set(meters.map(({ unit }) => unit))];
  const { settings: otherSetting } = await searchLine({
    kind: "rtu",
    openLine: (at) => lineOf({ name: "other", serial: { ...serial, ...(at as LineSettings) } }),
    steps: settings.map((at) => ({ settings: at, units, timeoutMs: otherSettingTimeoutMs })),
    units,
    timeoutMs: otherSettingTimeoutMs,
    profiles: [],
    signal,
  });
  return { triedSettings: settings.length, ...(otherSetting && { otherSetting }) };
}

function none(): UnitCounters {
  return { requests: 0, ok: 0, timeouts: 0, crcErrors: 0, exceptions: 0, wrongReplies: 0, late: 0 };
}
