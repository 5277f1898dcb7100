/** What the agent says of itself; its alarms are added by whoever watches it (agent/alarms.ts). Times in Unix seconds and milliseconds as named. */
import type { Alarm } from "../platform/alarm-board.ts";
import type { BacklogStatus } from "./backlog.ts";
import type { LoraCarrierStatus } from "./lora-carrier.ts";
import type { PolledMeter } from "./reading-path.ts";

export interface MeterStatus {
  readonly name: string;
  readonly index: number;
  readonly line: string;
  readonly lastTimeS: number;
  /** The clock is not set: that time is seconds since the boot. */
  readonly lastIsRelative: boolean;
  readonly lastStatus: string;
  readonly unsealedRows: number;
  readonly missedSlots: number;
  /** Good readings that ended more than 2 s, or a tenth of the slot, after it. */
  readonly lateReadings: number;
  /** Longest time after a slot's end at which a good reading was there, in milliseconds, since the start. */
  readonly longestOffsetMs: number;
  readonly lostRows: number;
}

export interface AgentStatus {
  readonly alarms?: readonly Alarm[];
  readonly device: string | undefined;
  readonly wallet: "connected" | "disconnected";
  /** The broker; undefined where none is configured. */
  readonly uplink: { readonly address: string; readonly connected: boolean; readonly detail: string } | undefined;
  /** Absent where it is not configured. */
  readonly lora?: LoraCarrierStatus;
  readonly sealed: number;
  readonly acknowledged: number;
  readonly waiting: number;
  readonly backlog: BacklogStatus;
  readonly meters: readonly MeterStatus[];
}

export function meterStatus(meter: PolledMeter): MeterStatus {
  const { configuration, modbus, lastS, isRelative, lastStatus, rows, missed, late, longestOffsetMs } = meter;
  return {
    name: configuration.name,
    index: configuration.index,
    line: modbus.line.description,
    lastTimeS: lastStatus === "" ? 0 : (lastS ?? 0),
    lastIsRelative: isRelative,
    lastStatus,
    unsealedRows: rows.reduce((sum, { buffer }) => sum + buffer.length, 0),
    missedSlots: missed,
    lateReadings: late,
    longestOffsetMs,
    lostRows: rows.reduce((sum, { lost }) => sum + lost, 0),
  };
}
