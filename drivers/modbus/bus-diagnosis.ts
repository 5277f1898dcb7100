/** What is wrong with a bus, in plain words, from what was seen of it. Pure. */
import type { AnswerLatency } from "./answer-times.ts";
import type { UnitCounters } from "./line.ts";
import { framingText, type LineSettings } from "./meter-search-plan.ts";

/** One meter while it was watched. */
export interface WatchedUnit {
  readonly unit: number;
  /** As the configuration calls it. */
  readonly name: string;
  /** Polled as fast as the profile's gap allows. */
  readonly busy: Readonly<UnitCounters>;
  /** Polled with a longer pause before each request; absent where there was no reason to. */
  readonly calm?: Readonly<UnitCounters>;
  readonly latency?: AnswerLatency;
  /** Longest answer that its profile allows. */
  readonly slowestAnswerMs: number;
  /** Why its last reading has no values although it answered: another model, a setting. */
  readonly refusal?: string;
}

/** One line while it was watched. */
export interface WatchedLine {
  readonly kind: "rtu" | "tcp";
  /** `/dev/ttyUSB0 at 9600 8N1`. */
  readonly description: string;
  /** Why it could not be watched, or watched no longer. */
  readonly failure?: string;
  /** Before anything was asked: bytes that came, and whole requests among them. */
  readonly uninvited: { readonly bytes: number; readonly requests: number };
  /** A setting at which a unit answered, where none did at the configured one; `tried` tells whether others were tried. */
  readonly otherSetting?: LineSettings;
  readonly triedSettings: number;
  readonly units: readonly WatchedUnit[];
}

export type DiagnosisKind =
  | "healthy"
  | "port"
  | "no-answers"
  | "wrong-setting"
  | "second-master"
  | "disturbed"
  | "unit-silent"
  | "unit-disturbed"
  | "lost-answers"
  | "needs-gap"
  | "slow"
  | "wrong-meter";

export interface Diagnosis {
  readonly kind: DiagnosisKind;
  /** Absent: of the whole line. */
  readonly unit?: number;
  /** What is seen, and what it most likely comes from. */
  readonly sentence: string;
  /** What to do about it; empty for `healthy`. */
  readonly todo: string;
}

/** Fewer faults than this in a hundred requests are left to the retries, and said as a remark of health. */
const faultShareMin = 0.005;
/** The calm time proves a gap where it would have been without a fault by chance so rarely, had it been like the busy one. */
const chanceMax = 0.05;

/** What is wrong, the worst first; one entry `healthy` where nothing is. */
export function diagnoseLine(line: WatchedLine): Diagnosis[] {
  if (line.failure !== undefined && line.units.every((unit) => unit.busy.requests === 0))
    return [{ kind: "port", sentence: line.failure, todo: "mend that first; nothing else could be seen" }];
  const found: Diagnosis[] = [];
  if (line.failure !== undefined)
    found.push({ kind: "port", sentence: line.failure, todo: "check the plug, the cable and the adapter" });
  if (line.uninvited.bytes > 0) found.push(uninvited(line));
  const asked = line.units.filter((unit) => unit.busy.requests > 0);
  if (asked.length > 0 && asked.every((unit) => !isHeard(unit))) found.push(noAnswers(line, asked));
  else found.push(...ofUnits(line, asked));
  return found.length > 0 ? found : [healthy(asked)];
}

function uninvited({ uninvited: { bytes, requests }, description }: WatchedLine): Diagnosis {
  return requests > 0
    ? {
        kind: "second-master",
        sentence: `${description}: before anything was asked here, ${requests} requests of somebody else came by: a second master is on this line`,
        todo: "leave one master on the line: unplug the other program's adapter, gateway or inverter, or give the meters a line of their own",
      }
    : {
        kind: "second-master",
        sentence: `${description}: ${bytes} bytes came before anything was asked: noise, a second master at another speed, or a device that sends by itself`,
        todo: "unplug the devices one by one until it is quiet; check the bias and the termination of the line",
      };
}

function noAnswers(line: WatchedLine, asked: readonly WatchedUnit[]): Diagnosis {
  const { description, otherSetting } = line;
  const units = unitList(asked);
  if (otherSetting)
    return {
      kind: "wrong-setting",
      sentence: `${description}: no answers at all here, but at ${framingText(otherSetting)} there are: the speed or parity is wrong`,
      todo: `set baud ${otherSetting.baud} and parity ${otherSetting.parity} for this line ('ecp scan --write --correct' does)`,
    };
  const garbled = asked.some(({ busy }) => busy.crcErrors > 0);
  if (garbled)
    return {
      kind: "no-answers",
      sentence: `${description}: ${units}: something comes back, and nobody can read it: a wrong speed or parity, wires A and B swapped, or two devices with one address`,
      todo: "ecp scan; then swap A and B; then leave one meter alone on the line",
    };
  if (line.kind === "tcp")
    return {
      kind: "no-answers",
      sentence: `${description}: connected, and no answers at all from ${units}: the gateway does not reach its meters, or the unit numbers are wrong`,
      todo: "check the unit numbers, and speed and parity in the gateway's own settings; ecp scan --tcp asks all units",
    };
  const tried = line.triedSettings > 0 ? `, nor at ${line.triedSettings} other settings` : "";
  return {
    kind: "no-answers",
    sentence: `${description}: no answers at all from ${units}${tried}: the wires A and B are swapped or broken, the meters have no power, or their addresses are others`,
    todo: "swap A and B at the adapter (it harms nothing), check the meters' displays for address and speed; ecp scan asks all units",
  };
}

function ofUnits(line: WatchedLine, asked: readonly WatchedUnit[]): Diagnosis[] {
  const found: Diagnosis[] = [];
  const heard = asked.filter(isHeard);
  const disturbed = heard.filter((unit) => share(total(unit), total(unit).crcErrors) >= faultShareMin);
  const isGap = (unit: WatchedUnit): boolean => needsGap(unit);
  // Spoilt answers of several meters have a cause that they share: the line. Of one of several: something near it.
  const ofLine = disturbed.filter((unit) => !isGap(unit));
  if (ofLine.length > 0 && (ofLine.length > 1 || heard.length === 1)) {
    const worst = ofLine.map((unit) => `unit ${unit.unit} ${percent(share(total(unit), total(unit).crcErrors))}`);
    found.push({
      kind: "disturbed",
      sentence: `${line.description}: answers arrive spoilt (${worst.join(", ")}): noise on the line, a missing or doubled termination, or a loose wire`,
      todo: "120 ohm at both ends and nowhere else, a shielded twisted pair away from power cables, the third wire (ground) connected; check every terminal",
    });
  }
  for (const unit of asked) {
    if (!isHeard(unit)) found.push(silentUnit(line, unit));
    else found.push(...unitFaults(unit, ofLine.length > 1 || heard.length === 1));
  }
  return found;
}

/** A meter that never gave an answer that can be read, while others did. */
function silentUnit(line: WatchedLine, { unit, name, busy }: WatchedUnit): Diagnosis {
  if (busy.crcErrors + busy.wrongReplies > busy.timeouts)
    return {
      kind: "unit-disturbed",
      unit,
      sentence: `unit ${unit} (${name}): every answer arrives spoilt while others are whole: two devices have this address, or its own wires are loose`,
      todo: `unplug ${name} and run this again: if unit ${unit} still answers, another device has its address`,
    };
  return {
    kind: "unit-silent",
    unit,
    sentence: `unit ${unit} (${name}): never answers, while others on ${line.description} do: its address, its power or its own wires`,
    todo: `look at ${name}'s display: is it on, is its address ${unit}, its speed and parity that of the others?`,
  };
}

function unitFaults(watched: WatchedUnit, crcIsOfLine: boolean): Diagnosis[] {
  const { unit, name, busy, latency, slowestAnswerMs, refusal } = watched;
  const all = total(watched);
  const found: Diagnosis[] = [];
  if (needsGap(watched))
    found.push({
      kind: "needs-gap",
      unit,
      sentence: `unit ${unit} (${name}): loses ${percent(share(busy, faultsOf(busy)))} of its answers when asked quickly, and none when there is a longer pause before each request: it wants a larger gap`,
      todo: "read it less often (interval_s), or give its profile a larger gap_ms; tell us, so that the profile gets it",
    });
  else {
    if (!crcIsOfLine && share(all, all.crcErrors) >= faultShareMin)
      found.push({
        kind: "unit-disturbed",
        unit,
        sentence: `unit ${unit} (${name}): ${percent(share(all, all.crcErrors))} of its answers arrive spoilt, and the others' do not: two devices with this address, or loose wires at this meter`,
        todo: `tighten the terminals at ${name}; unplug it and see whether unit ${unit} still answers`,
      });
    if (share(all, all.timeouts) >= faultShareMin && latency !== undefined && all.late > 0)
      found.push({
        kind: "slow",
        unit,
        sentence: `unit ${unit} (${name}): answers late: ${all.late} came after their time (half take ${Math.round(latency.medianMs)} ms, the longest ${Math.round(latency.maxMs)} ms; its profile allows ${slowestAnswerMs} ms)`,
        todo: "read it less often; behind a gateway, look at the gateway's own time-out",
      });
    else if (share(all, all.timeouts) >= faultShareMin)
      found.push({
        kind: "lost-answers",
        unit,
        sentence: `unit ${unit} (${name}): ${percent(share(all, all.timeouts))} of the requests get no answer${atAnyPause(watched)}: a bad contact, or disturbances that spoil the requests`,
        todo: `tighten the terminals at ${name}; check the termination at both ends of the line`,
      });
  }
  if (share(all, all.wrongReplies) >= faultShareMin)
    found.push({
      kind: "second-master",
      unit,
      sentence: `unit ${unit} (${name}): ${all.wrongReplies} answers came that belong to another unit or another question: a second master asks on this line, or two devices share an address`,
      todo: "leave one master on the line; give each device an address of its own",
    });
  if (refusal !== undefined)
    found.push({
      kind: "wrong-meter",
      unit,
      sentence: `unit ${unit} (${name}): answers, but cannot be read: ${refusal}`,
      todo: "ecp scan tells what it looks like",
    });
  return found;
}

/** Said only where enough was asked with longer pauses to know. */
function atAnyPause({ calm }: WatchedUnit): string {
  return calm !== undefined && faultsOf(calm) > 0 ? ", at any pause" : "";
}

/** An answer that came late is a time-out too, so it is counted as one. */
function faultsOf({ timeouts, crcErrors }: Readonly<UnitCounters>): number {
  return timeouts + crcErrors;
}

/** Busy and calm together. */
function total({ busy, calm }: WatchedUnit): UnitCounters {
  const keys = Object.keys(busy) as (keyof UnitCounters)[];
  return Object.fromEntries(keys.map((key) => [key, busy[key] + (calm?.[key] ?? 0)])) as unknown as UnitCounters;
}

/** Faults under load that are gone with a longer pause. */
function needsGap({ busy, calm }: WatchedUnit): boolean {
  if (calm === undefined) return false;
  const faultShare = share(busy, faultsOf(busy));
  return faultShare >= faultShareMin && faultsOf(calm) === 0 && (1 - faultShare) ** calm.requests <= chanceMax;
}

function healthy(asked: readonly WatchedUnit[]): Diagnosis {
  const sum = (of: (counters: Readonly<UnitCounters>) => number): number =>
    asked.reduce((total, { busy, calm }) => total + of(busy) + (calm ? of(calm) : 0), 0);
  const requests = sum((counters) => counters.requests);
  const faults = sum(({ timeouts, crcErrors, wrongReplies }) => timeouts + crcErrors + wrongReplies);
  const rare = faults === 0 ? "" : `; ${faults} went wrong and were mended by asking again, which is nothing to mend`;
  return {
    kind: "healthy",
    sentence: `the bus is well: ${asked.length === 1 ? "the meter answers" : `each of the ${asked.length} meters answers`}, ${requests} requests${rare}`,
    todo: "",
  };
}

/** It gave an answer that could be read, if only an exception. */
function isHeard({ busy, calm }: WatchedUnit): boolean {
  return busy.ok + busy.exceptions + (calm?.ok ?? 0) + (calm?.exceptions ?? 0) > 0;
}

function share({ requests }: Readonly<UnitCounters>, count: number): number {
  return requests === 0 ? 0 : count / requests;
}

function percent(value: number): string {
  return value >= 0.1 ? `${Math.round(100 * value)} %` : `${(100 * value).toFixed(1)} %`;
}

function unitList(units: readonly WatchedUnit[]): string {
  const list = units.map(({ unit, name }) => `${unit} (${name})`).join(", ");
  return units.length === 1 ? `unit ${list}` : `units ${list}`;
}
