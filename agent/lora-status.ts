/** How the LoRaWAN uplink stands, for people, alarms and metrics; and what it tells as it happens. */

/** Every state that the uplink can be in, each with its name. */
export type LoraCondition =
  /** Not started, or stopped. */
  | "stopped"
  /** The modem does not answer, or its port is gone: it is tried again. */
  | "modem-away"
  /** A join request is on its way. */
  | "joining"
  /** The last join request led to nothing (the detail says how): the next follows at a growing distance. */
  | "not-joined"
  /** A frame is on its way. */
  | "sending"
  /** Nothing is to be sent now. */
  | "idle"
  /** The hour's airtime that the law allows is used up, by this uplink's own count. */
  | "duty-cycle"
  /** The day's airtime that the network's owner allows is used up. */
  | "fair-use"
  /** The modem itself refuses for now: it is busy, or its own count of the duty cycle says so. */
  | "modem-refuses"
  /** Frames are too short now for what is to be sent: MAC commands fill them, or the data rate allows too little. */
  | "no-room"
  /** The state cannot be written, so the airtime of a frame could be forgotten: nothing is sent. */
  | "state-unwritable"
  /** The wallet cannot be asked for records. */
  | "no-records";

export interface LoraState {
  readonly condition: LoraCondition;
  /** One sentence for people. */
  readonly detail?: string;
  /** In how many milliseconds it goes on by itself; absent where that depends on something else. */
  readonly resumesInMs?: number;
}

/** Airtime in a rolling window, in milliseconds. */
export interface LoraAllowance {
  readonly windowMs: number;
  readonly limitMs: number;
  readonly spentMs: number;
}

export interface LoraSessionStatus {
  /** FPort, which is the RuleID. */
  readonly port: number;
  readonly epoch: number;
  readonly sequence: number;
  /** Of the SCHC packet. */
  readonly bytes: number;
  readonly ageMs: number;
}

export interface LoraStatus extends LoraState {
  /** Family and firmware as the modem gave them. */
  readonly modem: string;
  readonly region: string;
  readonly isJoined: boolean;
  /** The modem's live data rate (follows ADR), and the longest payload at it. */
  readonly dataRate?: number;
  readonly bytesMax?: number;
  /** Since the start of this process. */
  readonly framesSent: number;
  readonly bytesSent: number;
  readonly joinRequests: number;
  readonly downlinks: number;
  /** Downlinks on other ports, or of no session. */
  readonly downlinksIgnored: number;
  readonly receipts: number;
  /** Of all frames, joins among them. */
  readonly airtimeHourMs: number;
  readonly airtimeDayMs: number;
  /** Absent where the region has no duty cycle. */
  readonly dutyCycle?: LoraAllowance;
  /** Absent where none is set. */
  readonly fairUse?: LoraAllowance;
  readonly sessions: readonly LoraSessionStatus[];
  /** Records that went out whole and are in no verified receipt yet. */
  readonly awaitingReceipt: number;
  /** Records that no SCHC packet can hold; they wait for another uplink. */
  readonly tooLarge: number;
  /** Milliseconds since the last downlink of any kind; absent where none came. */
  readonly sinceDownlinkMs?: number;
}

/** How a transfer by fragments ended. */
export type LoraSessionOutcome =
  /** SCHC ACK with C = 1. A receipt is still due. */
  | "acknowledged"
  /** A verified receipt named the record. */
  | "stored"
  | "receiver-abort"
  /** All requests for an ACK went unanswered; the record is sent anew later. */
  | "unacknowledged"
  | "rcs-mismatch"
  /** All FPorts were taken, nothing had answered it for long, and a newer record wanted one; it is sent anew later. */
  | "displaced";

export type LoraEvent =
  | {
      readonly event: "frame";
      readonly port: number;
      readonly bytes: number;
      /** Absent where the modem does not say. */
      readonly dataRate?: number;
      readonly airtimeMs: number;
    }
  /** A record went out whole in one frame (for the `tries`th time), or a session for it began. */
  | { readonly event: "record"; readonly epoch: number; readonly sequence: number; readonly tries: number }
  | {
      readonly event: "session-ended";
      readonly port: number;
      readonly epoch: number;
      readonly sequence: number;
      readonly outcome: LoraSessionOutcome;
    }
  | { readonly event: "too-large"; readonly epoch: number; readonly sequence: number; readonly bytes: number }
  | { readonly event: "joined" }
  | { readonly event: "join-failed"; readonly outcome: string; readonly nextInMs: number }
  /** The state that was kept cannot be read: it begins anew, and the budgets count as spent. */
  | { readonly event: "state-spoilt"; readonly detail: string }
  /** Nothing came down for long though receipts were due: the modem joins again. */
  | { readonly event: "link-dead"; readonly sinceDownlinkMs: number };
