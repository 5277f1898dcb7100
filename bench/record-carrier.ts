/**
 * Plays the agent of one hub: takes sealed records from the wallet to a full node over MQTT, and the receipts back. Under a client id of
 * its own, since two clients of one id push each other off the broker; so two hubs with one key can deliver at the same time.
 */
import { setTimeout as pause } from "node:timers/promises";
import { connectAsync, type MqttClient } from "mqtt";
import type { WalletClient } from "../agent/wallet-client.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { type ReleaseAnswer, WalletRefusal } from "../protocol/wallet-message.ts";
import { type SealedRecord, sealedRecord } from "./card-hub.ts";

/** How long a receipt is waited for before all is sent again: the first one, and each that follows. */
const firstMs = 2_000;
const nextMs = 200;
const deadlineMs = 30_000;
const receiptMs = 20_000;

export class RecordCarrier {
  /** What the wallet said to each receipt that it did not take, by reason. */
  readonly refused = new Map<string, number>();
  readonly #client: MqttClient;
  readonly #device: string;
  readonly #receipts: Uint8Array[] = [];
  #woken: () => void = () => undefined;

  private constructor(client: MqttClient, device: string) {
    this.#client = client;
    this.#device = device;
    client.on("message", (_topic, payload) => {
      this.#receipts.push(new Uint8Array(payload));
      this.#woken();
    });
  }

  /** Resolves when it is subscribed to the device's receipts. */
  static async connect(port: number, device: string, clientId: string): Promise<RecordCarrier> {
    const client = await connectAsync(`mqtt://127.0.0.1:${port}`, { clientId, protocolVersion: 4, reconnectPeriod: 0 });
    const carrier = new RecordCarrier(client, device);
    await client.subscribeAsync(topicOf(device, "receipt"), { qos: 1 });
    return carrier;
  }

  async publish(record: Uint8Array): Promise<void> {
    await this.#client.publishAsync(topicOf(this.#device, "record"), Buffer.from(record), { qos: 1 });
  }

  /** The next receipt; waits for it. */
  async receipt(timeoutMs = receiptMs): Promise<Uint8Array> {
    const receipt = await this.#next(timeoutMs);
    if (receipt === undefined) throw new Error(`no receipt within ${timeoutMs} ms`);
    return receipt;
  }

  async #next(timeoutMs: number): Promise<Uint8Array | undefined> {
    if (this.#receipts.length === 0) {
      const late = new AbortController();
      const woken = new Promise<void>((resolve) => {
        this.#woken = resolve;
      });
      await Promise.race([woken, pause(timeoutMs, undefined, { signal: late.signal }).catch(() => undefined)]);
      late.abort();
    }
    return this.#receipts.shift();
  }

  /** Hands a receipt to the wallet. */
  async release(wallet: WalletClient, receipt: Uint8Array): Promise<ReleaseAnswer | WalletRefusal> {
    try {
      return await wallet.release(receipt);
    } catch (error) {
      if (!(error instanceof WalletRefusal)) throw error;
      this.refused.set(error.reason, (this.refused.get(error.reason) ?? 0) + 1);
      return error;
    }
  }

  /** Hands over the receipts that have come, and those that come within `forMs`. */
  async takeReceipts(wallet: WalletClient, forMs = 0): Promise<void> {
    const untilMs = performance.now() + forMs;
    for (;;) {
      const receipt = this.#receipts.shift() ?? (await this.#next(Math.max(0, untilMs - performance.now())));
      if (receipt === undefined) return;
      await this.release(wallet, receipt);
    }
  }

  /** What the wallet has sealed and may not let go of, of all epochs, oldest first. */
  async waiting(wallet: WalletClient): Promise<Uint8Array[]> {
    const { epoch, through, nextSequence, earlierEpochs } = await wallet.hello();
    const spans = [...earlierEpochs, { epoch, through, last: nextSequence - 1 }];
    const waiting: Uint8Array[] = [];
    for (const { epoch: of, through: released, last } of spans)
      for (let from = released + 1; from <= last; ) {
        const { records } = await wallet.read(from, last, of);
        waiting.push(...records.map(([, bytes]) => bytes));
        const newest = records.at(-1)?.[0];
        if (newest === undefined) break;
        from = newest + 1;
      }
    return waiting;
  }

  /** Sends what waits again and again until the wallet has let go of all of it. */
  async deliverAll(wallet: WalletClient): Promise<void> {
    const untilMs = performance.now() + deadlineMs;
    for (;;) {
      const waiting = await this.waiting(wallet);
      if (waiting.length === 0) return;
      if (performance.now() > untilMs)
        throw new Error(
          `${waiting.length} records were not acknowledged within ${deadlineMs} ms; the wallet refused receipts: ` +
            JSON.stringify(Object.fromEntries(this.refused)),
        );
      for (const bytes of waiting) await this.publish(bytes);
      if (await this.#takeWhileTheyCome(wallet)) return;
    }
  }

  /** Whether nothing waits any more. */
  async #takeWhileTheyCome(wallet: WalletClient): Promise<boolean> {
    for (let waitMs = firstMs; ; waitMs = nextMs) {
      const receipt = await this.#next(waitMs);
      if (receipt === undefined) return false;
      await this.release(wallet, receipt);
      if ((await this.waiting(wallet)).length === 0) return true;
    }
  }

  async close(): Promise<void> {
    await this.#client.endAsync(true);
  }
}

/** Sees what is delivered for a device, in the order in which the broker passes it on. */
export class RecordObserver {
  readonly records: SealedRecord[] = [];
  readonly #client: MqttClient;

  private constructor(client: MqttClient) {
    this.#client = client;
    client.on("message", (_topic, payload) => this.records.push(sealedRecord(new Uint8Array(payload))));
  }

  static async connect(port: number, device: string, clientId: string): Promise<RecordObserver> {
    const client = await connectAsync(`mqtt://127.0.0.1:${port}`, { clientId, protocolVersion: 4, reconnectPeriod: 0 });
    const observer = new RecordObserver(client);
    await client.subscribeAsync(topicOf(device, "record"), { qos: 1 });
    return observer;
  }

  async close(): Promise<void> {
    await this.#client.endAsync(true);
  }
}
