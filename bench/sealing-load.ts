/** A client of a wallet that seals as fast as its policy allows, and remembers every answer: the load of the campaigns. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { WalletClient, WalletUnavailable } from "../agent/wallet-client.ts";
import { writeFileDurably } from "../platform/durable-file.ts";
import type { Row } from "../protocol/record.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import type { StoredRecord } from "../test/system/stored-chain-fixture.ts";
import { decodePolicy, encodePolicy, type PolicyMeter } from "../wallet/policy.ts";
import type { Campaign } from "./campaign.ts";

const loadMeters = [100, 101, 102, 103];
const rowsPerMinute = 6_000;
const recheckedMax = 5;

interface Acknowledged {
  readonly meter: number;
  readonly row: Row;
  readonly sequence: number;
  /** Of the record, as it was read back. */
  readonly digest: string;
}

/** Seals row after row and remembers every answer; across restarts it asks for the same again. */
export class Load {
  readonly acknowledged: Acknowledged[] = [];
  /** Answers to a repeated request, or bytes read back, that were not the same as before. */
  readonly differences: string[] = [];
  /** How often the wallet has refused because its ring was full. */
  ringFull = 0;
  readonly #client: WalletClient;
  readonly #campaign: Campaign;
  #timeS: number;
  #stopped = false;
  done: Promise<void> = Promise.resolve();

  constructor(campaign: Campaign, socket: string) {
    this.#campaign = campaign;
    this.#client = new WalletClient(socket);
    this.#timeS = Math.floor(Date.now() / 1_000) - 2_000_000; // in the past, and rising: many rows a second, none of the future
  }

  start(): void {
    this.done = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.done;
    this.#client.close();
  }

  /** What was acknowledged and is not in the record that the answer named. */
  lostFrom(stored: readonly StoredRecord[]): Acknowledged[] {
    const sequences = new Map<string, number>();
    for (const { sequence, record } of stored)
      if (record.content.kind === "reading")
        for (const row of record.content.rows) sequences.set(keyOf(record.content.meter, row), sequence);
    return this.acknowledged.filter(({ meter, row, sequence }) => sequences.get(keyOf(meter, row)) !== sequence);
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const meter = this.#campaign.random.pick(loadMeters);
      const timeS = ++this.#timeS;
      const row = { timeS, status: 0, values: [timeS, 2 * timeS] };
      const sequence = await this.#sealed(meter, row);
      const digest = await this.#digest(sequence);
      if (sequence > 0) this.acknowledged.push({ meter, row, sequence, digest });
    }
  }

  /** The same request until it is answered: a wallet that died may have sealed it. */
  async #sealed(meter: number, row: Row): Promise<number> {
    for (;;) {
      try {
        return await this.#seal(meter, row);
      } catch (error) {
        if (error instanceof WalletRefusal && (error.reason === "rate-exceeded" || error.reason === "ring-full")) {
          if (error.reason === "ring-full") this.ringFull++;
          await pause(20);
          continue;
        }
        if (!(error instanceof WalletUnavailable)) throw error;
        await this.#client.connected(AbortSignal.timeout(60_000));
        await this.#checkLatest();
      }
    }
  }

  async #seal(meter: number, row: Row): Promise<number> {
    const { sequences } = await this.#client.seal({ meter, plan: 0, slotS: 1, codes: [2, 4], rows: [row] });
    return sequences[0] as number;
  }

  /** What was answered last is asked for again: the same sequence, the same bytes. */
  async #checkLatest(): Promise<void> {
    for (const { meter, row, sequence, digest } of this.acknowledged.slice(-recheckedMax)) {
      try {
        const again = await this.#seal(meter, row);
        if (again !== sequence) this.differences.push(`row ${row.timeS}: record ${sequence}, later ${again}`);
        const now = await this.#digest(sequence);
        if (now !== "" && digest !== "" && now !== digest) this.differences.push(`record ${sequence} has other bytes`);
      } catch (error) {
        if (error instanceof WalletRefusal && error.reason === "ring-full") continue;
        if (!(error instanceof WalletUnavailable)) throw error;
        await this.#client.connected(AbortSignal.timeout(60_000));
      }
    }
  }

  /** Empty where the record went on the way: it was released, and its segment used again, or the wallet died. */
  async #digest(sequence: number): Promise<string> {
    try {
      const { records } = await this.#client.read(sequence, sequence);
      const bytes = records[0]?.[1];
      return bytes === undefined ? "" : createHash("sha256").update(bytes).digest("hex");
    } catch (error) {
      if (error instanceof WalletUnavailable) return "";
      throw error;
    }
  }
}

function keyOf(meter: number, { timeS, values }: Row): string {
  return `${meter}/${timeS}/${values}`;
}

/** Meters that only the load feeds. */
export function addLoadMeters(file: string): void {
  const policy = decodePolicy(readFileSync(file));
  const model = policy.meters[0] as PolicyMeter;
  const added = loadMeters.map((index) => ({ ...model, index, name: `load ${index}`, slotS: 1, rowsPerMinute }));
  writeFileDurably(path.resolve(file), encodePolicy({ ...policy, meters: [...policy.meters, ...added] }), 0o600);
}
