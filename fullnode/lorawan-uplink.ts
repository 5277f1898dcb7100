/**
 * What a LoRaWAN network server tells the full node and takes from it, in one form for all servers. The adapters (chirpstack.ts,
 * things-stack.ts) are pure: a topic and bytes in, an event out. Nothing here is trusted: LoRaWAN authenticates a frame to the network
 * server only, and whoever may write to its broker can say anything. The signature of the record decides.
 */

/** An event's JSON: a frame that a hundred gateways heard stays below it. */
export const eventBytesMax = 65_536;
/** The largest FRMPayload of any region and data rate. */
export const frameBytesMax = 242;

/** Where a device is reached at its network server: the part of the topics that names it. */
export interface LorawanRoute {
  /** 16 lower-case hexadecimal digits. */
  readonly devEui: string;
  /** What stands before `/command/down` or `/down/replace`. */
  readonly topic: string;
}

export interface LorawanUplink {
  readonly kind: "uplink";
  readonly route: LorawanRoute;
  /** 8 lower-case hexadecimal digits; another after each join. */
  readonly devAddr: string | undefined;
  /** Counts the device's frames since it joined. */
  readonly fCnt: number;
  /** 0: no data for an application in it. */
  readonly fPort: number;
  /** FRMPayload, decrypted by the server. */
  readonly bytes: Uint8Array;
  readonly spreadingFactor: number | undefined;
  /** How many gateways heard it, and how the best of them did. */
  readonly gateways: number;
  readonly rssiDbm: number | undefined;
  readonly snrDb: number | undefined;
}

export type LorawanEvent =
  | LorawanUplink
  | { readonly kind: "join"; readonly route: LorawanRoute; readonly devAddr: string | undefined }
  | {
      /** What became of a downlink that was queued. */
      readonly kind: "downlink";
      /** As {@link LorawanRoute.topic}; of a failed one The Things Stack does not name the DevEUI. */
      readonly deviceTopic: string;
      /** As it was given to {@link NetworkServer.command}; undefined: the server does not say which. */
      readonly id: string | undefined;
      readonly state: "sent" | "failed";
      readonly detail?: string;
    }
  | {
      /** Something that the operator should read. */
      readonly kind: "warning";
      readonly route: LorawanRoute;
      readonly code: string;
      readonly detail: string;
    }
  | { readonly kind: "other" };

export interface QueuedDownlink {
  /** A UUID. */
  readonly id: string;
  readonly fPort: number;
  readonly bytes: Uint8Array;
  /** Unix milliseconds; not sent after it, where the server can do so. */
  readonly expiresMs: number;
}

export interface LorawanCommand {
  readonly topic: string;
  readonly json: string;
}

export interface NetworkServer {
  readonly name: "chirpstack" | "tts";
  /** What to subscribe to. */
  readonly filters: readonly string[];
  readonly qos: 0 | 1;
  /** Whether {@link command} replaces what the server has in its queue for the device; else it adds to it. */
  readonly replaces: boolean;
  /** Throws {@link LorawanRefusal}. */
  read(topic: string, payload: Uint8Array): LorawanEvent;
  /** @param others what the server was given before and should keep */
  command(route: LorawanRoute, fresh: QueuedDownlink, others: readonly QueuedDownlink[]): LorawanCommand;
}

/** Why a message of a network server's broker, or the frame in it, was not taken. */
export const lorawanSentences = {
  "too-large": "the message or the frame is longer than any that LoRaWAN can carry",
  "foreign-topic": "the topic is not one of the application that this node serves",
  "not-json": "the message is not a JSON object; the server must be set to JSON, not to Protobuf",
  "bad-field": "a field has a type or value that it must not have",
  "other-device": "the message names another device than its topic",
  "still-encrypted":
    "the data is still encrypted: the application key lies at a join server, and not at the network server",
  simulated: "the frame was made up at the network server's console, and no device sent it",
  "unknown-device": "no device is bound to this DevEUI; `ecp-node lorawan bind` does so",
  duplicate: "the frame came already",
  replayed: "the frame's counter is far below one that came before, and the device has not joined since",
  "foreign-port": "the FPort is none that records or their fragments come on",
  "bad-fragment": "the frame is no fragment, or does not fit those before it",
  "bad-packet": "the packet does not hold a record",
  "too-many-sessions": "more devices send fragments than the node keeps sessions for",
} as const;

export type LorawanReason = keyof typeof lorawanSentences;

export class LorawanRefusal extends Error {
  readonly reason: LorawanReason;
  readonly detail: string | undefined;
  /** @param detail what was found where; never whole messages */
  constructor(reason: LorawanReason, detail?: string) {
    super(detail === undefined ? lorawanSentences[reason] : `${lorawanSentences[reason]} (${detail})`);
    this.name = "LorawanRefusal";
    this.reason = reason;
    this.detail = detail;
  }
}
