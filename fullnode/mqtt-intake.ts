/**
 * Between the broker and the record path: subscribes to the records of all devices, publishes receipts. What was not delivered comes
 * again, because devices keep their records until they have a receipt.
 */
import type { BackOff } from "../platform/back-off.ts";
import type { Log } from "../platform/log.ts";
import { topicFilter, topicOf } from "../protocol/mqtt-topic.ts";
import { type BrokerAddress, MqttLink, type MqttVersion } from "./mqtt-link.ts";
import type { OutgoingReceipt } from "./record-event.ts";

/** A record of the largest size, its topic, and what a broker may add. */
export const mqttPacketBytesMax = 65_536;
/** Client ids of nodes. A hub's is `ecp-z…`. */
export const nodeClientIdStart = "ecp-node-";
/** Receipts on their way: far below the 65,535 packet identifiers after which mqtt.js stops for ever. */
export const receiptsInFlightMax = 1_000;
const sessionExpiryS = 86_400;

export interface IntakeParts {
  readonly broker: BrokerAddress;
  /** At most 23 characters (MQTT 3.1.1 §3.1.3.1). The same at each start. */
  readonly clientId: string;
  /** The broker gives each record to one node of this group (MQTT 5 §4.8.2; mosquitto does so for 3.1.1 too). */
  readonly shareGroup?: string;
  readonly onMessage: (topic: string, payload: Uint8Array) => void;
  /** Subscribed, over this version of MQTT; undefined: not any more. */
  readonly onConnected?: (version: MqttVersion | undefined) => void;
  readonly log: Log;
  readonly backOff?: BackOff;
}

export class MqttIntake {
  readonly #link: MqttLink;
  /** The newest receipts of each chain that are not on their way yet: one, or several that were given together. */
  readonly #outbox = new Map<string, OutgoingReceipt[]>();
  #inFlight = 0;

  constructor(parts: IntakeParts) {
    const { shareGroup } = parts;
    const filter = shareGroup === undefined ? topicFilter("record") : `$share/${shareGroup}/${topicFilter("record")}`;
    this.#link = new MqttLink({
      ...parts,
      filters: [filter],
      qos: 1,
      // The broker keeps records for a node that is away, if it can; nothing depends on it. Of a group another node takes them.
      sessionExpiryS: shareGroup === undefined ? sessionExpiryS : 0,
      packetBytesMax: mqttPacketBytesMax,
      name: "the broker",
      advice: {
        user: "check --username and --password-file, and the broker's list of users",
        subscription: "let this user read ecp/1/+/record in the broker's access list",
        absent: "devices keep their records meanwhile",
      },
      onConnected: (version) => {
        this.#inFlight = 0;
        parts.onConnected?.(version);
        if (version !== undefined) this.#send();
      },
    });
  }

  /** Puts receipts on their way; where the broker is away they wait, the newest of each chain. */
  publish(receipts: readonly OutgoingReceipt[]): void {
    const given = new Map<string, OutgoingReceipt[]>();
    for (const receipt of receipts) {
      const key = `${receipt.device}/${receipt.epoch}`;
      const together = given.get(key);
      if (together) together.push(receipt);
      else given.set(key, [receipt]);
    }
    for (const [key, together] of given) this.#outbox.set(key, together);
    this.#send();
  }

  async close(): Promise<void> {
    await this.#link.close();
  }

  #send(): void {
    if (!this.#link.isConnected) return;
    for (const [key, together] of this.#outbox) {
      while (this.#inFlight < receiptsInFlightMax) {
        const receipt = together.shift();
        if (receipt) this.#publish(receipt);
        else break;
      }
      if (together.length > 0) return;
      this.#outbox.delete(key);
    }
  }

  #publish({ device, bytes }: OutgoingReceipt): void {
    this.#inFlight++;
    this.#link.publish(topicOf(device, "receipt"), bytes, 1, () => {
      this.#inFlight--;
      this.#send();
    });
  }
}
