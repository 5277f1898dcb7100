/**
 * A hub that has a LoRaWAN modem and no other uplink: its agent's process with the real rows, batches, source, uplink and driver, on the
 * world's time; what is durable of it are the wallet's journal and the uplink's state.
 */
import type { MeterConfiguration } from "../../agent/configuration.ts";
import { EpochForwarders } from "../../agent/epoch-forwarders.ts";
import type { AgentEvent } from "../../agent/event.ts";
import { LoraCarrier } from "../../agent/lora-carrier.ts";
import type { LoraStateStore } from "../../agent/lora-state-store.ts";
import { ReceiptTaking } from "../../agent/receipt-taking.ts";
import { keepRow, type MeterRows, meterRows, type SealingOptions, sealDue } from "../../agent/row-sealing.ts";
import { type WalletClient, WalletUnavailable } from "../../agent/wallet-client.ts";
import type { ByteTransport } from "../../drivers/byte-transport.ts";
import { createLoraModem, type ModemFamily } from "../../drivers/lora/modem.ts";
import type { RegionName } from "../../drivers/lora/region.ts";
import { meterProfiles } from "../../drivers/modbus/profile-catalogue.ts";
import { statuses } from "../../protocol/reading-status.ts";
import type { Row } from "../../protocol/record.ts";
import { readHello } from "../../protocol/wallet-hello.ts";
import {
  readReadAnswer,
  readReleaseAnswer,
  readSealAnswer,
  type SealRequest,
  type WalletRequest,
} from "../../protocol/wallet-message.ts";
import { HubProcess, type WorldTiming } from "./lora-timing.ts";
import { type SimulatedWallet, WalletAway } from "./simulated-wallet.ts";
import { type VirtualWorld, worldStartS } from "./virtual-world.ts";

/** Active energy import and export. */
export const loraCodes = [2, 4] as const;
const helloEveryMs = 30_000;
const stateWriteMs = 20;

export interface LoraHubParts {
  readonly world: VirtualWorld;
  readonly timing: WorldTiming;
  readonly wallet: SimulatedWallet;
  readonly openTransport: () => Promise<ByteTransport>;
  readonly family: ModemFamily;
  readonly region: RegionName;
  /** The network server's; a modem hears of it when it joins, its host from hub.yaml. */
  readonly rx1DelayS: number;
  readonly meters: number;
  readonly slotS: number;
  readonly batchS: number;
  /** False, as a control: what the uplink writes is gone with its process. */
  readonly keepsState: boolean;
  /** False once the meters are to be left alone. */
  readonly isReading: () => boolean;
  /** What a meter shows. */
  readonly read: (meter: number, timeS: number) => Row;
}

interface RunningAgent {
  readonly process: HubProcess;
  readonly forwarders: EpochForwarders;
  readonly carrier: LoraCarrier;
  readonly rows: readonly MeterRows[];
  readonly sealing: SealingOptions;
}

export class LoraHub {
  readonly #parts: LoraHubParts;
  #agent: RunningAgent | undefined;
  #bootedMs = 0;
  #bootId = "boot 0";
  #state: Uint8Array | undefined;
  /** Every row that an agent had and gave to seal, by meter and time. */
  readonly rows = new Map<string, Row>();
  readonly counts = { starts: 0, rowsLost: 0, refused: 0, linksDead: 0 };
  /** What the wallet or the uplink refused, told of as it happened. */
  readonly refusals: string[] = [];

  constructor(parts: LoraHubParts) {
    this.#parts = parts;
    parts.world.every(helloEveryMs, async () => {
      this.#meetWallet(false);
      this.#agent?.carrier.look();
      await parts.timing.settle();
    });
    parts.world.every(parts.slotS * 1_000, async () => {
      this.#endOfSlot(Math.round(parts.world.wallMs / 1_000));
      await parts.timing.settle();
    });
  }

  get isRunning(): boolean {
    return this.#agent !== undefined;
  }

  get carrier(): LoraCarrier | undefined {
    return this.#agent?.carrier;
  }

  get waiting(): number {
    return this.#agent?.forwarders.waiting ?? 0;
  }

  start(): void {
    const { world, timing, region, family, openTransport, meters, slotS, batchS, rx1DelayS } = this.#parts;
    const process = new HubProcess(timing, this.#bootedMs, () => world.wallMs);
    const forwarders = new EpochForwarders();
    const wallet = this.#client(process);
    const emit = (event: AgentEvent): void => this.#note(event);
    const configurations = Array.from({ length: meters }, (_, index) => meterConfiguration(index, slotS));
    const carrier = new LoraCarrier({
      configuration: {
        modem: { path: "simulated", family, baud: 9_600 },
        ...{ region, slotS, codes: [], batchS, rx1DelayS, when: "always", stateFolder: "simulated" },
      },
      meters: configurations,
      profileOf: (id) => meterProfiles.find((profile) => profile.id === id) ?? fail(`no profile ${id}`),
      modem: createLoraModem({ openTransport, family, region, rx1DelayS, timing: process.timing }),
      timing: process.timing,
      store: this.#store(process),
      bootId: this.#bootId,
      random: () => world.random.uint32() / 2 ** 32,
    });
    const { monotonicMs } = process.clock;
    const onTaken = (): void => carrier.news();
    const receipts = new ReceiptTaking({ wallet, forwarders, monotonicMs, emit, onTaken });
    this.#agent = {
      ...{ process, forwarders, carrier },
      rows: configurations.map(({ index, intervalS }) => meterRows(index, intervalS, carrier.plan)),
      sealing: {
        ...{ wallet, sealEveryS: 60, emit },
        onSealed: (sequence) => {
          if (!process.isAlive) return;
          forwarders.running.sealed(sequence, monotonicMs());
          carrier.news();
        },
      },
    };
    this.counts.starts++;
    this.#meetWallet(true);
    this.#keepStartGap();
    carrier.start({
      ...{ wallet, forwarders, emit },
      onReceipt: (receipt) => {
        if (!process.isAlive) return;
        receipts.push(receipt);
        void receipts.takeAll();
      },
    });
  }

  /** The process ends without a word. */
  kill(): void {
    this.#agent?.process.kill();
    this.#agent = undefined;
    if (!this.#parts.keepsState) this.#state = undefined;
    this.#parts.world.note("agent ended");
  }

  /** The machine starts anew, the wallet with it; the modem has a supply of its own. */
  reboot(): void {
    this.kill();
    this.#parts.wallet.cutPower(false);
    this.#bootedMs = this.#parts.world.nowMs;
    this.#bootId = `boot ${this.#bootedMs}`;
    this.#parts.wallet.start();
  }

  #meetWallet(anew: boolean): void {
    const agent = this.#agent;
    if (agent === undefined || !this.#parts.wallet.isRunning) return;
    agent.forwarders.meet(this.#parts.wallet.hello(), anew);
    agent.carrier.news();
  }

  /** The slots that passed while no agent ran: a row with status N stands for each. */
  #keepStartGap(): void {
    const { wallet, world, slotS } = this.#parts;
    const nowS = Math.floor(world.wallMs / 1_000);
    for (const { index, lastTimeS } of wallet.hello().meters)
      for (let timeS = Math.max(lastTimeS, worldStartS) + slotS; timeS <= nowS; timeS += slotS)
        this.#keep(index, { timeS, status: statuses.notPresent, values: [] });
  }

  #endOfSlot(timeS: number): void {
    const { meters, read, isReading } = this.#parts;
    if (!isReading()) return;
    for (let meter = 0; meter < meters; meter++) this.#keep(meter, read(meter, timeS));
  }

  /** POINT OF NO RETURN for each row: what the wallet takes must reach the store. */
  #keep(meter: number, row: Row): void {
    const agent = this.#agent;
    const rows = agent?.rows[meter];
    if (agent === undefined || rows === undefined) return;
    keepRow(rows, { codes: loraCodes, row });
    // What is asked for again after a start may be sealed already: the wallet knows better, and refuses the other one.
    const key = `${meter}/${row.timeS}`;
    if (!this.rows.has(key)) this.rows.set(key, row);
    void sealDue(rows, agent.sealing);
  }

  #note(event: AgentEvent): void {
    const { world } = this.#parts;
    if (event.event === "refused" && event.reason !== "row-conflict") {
      this.counts.refused++;
      this.refusals.push(`${event.reason}: ${event.detail}`);
    }
    if (event.event === "lost") this.counts.rowsLost += event.rows;
    if (event.event === "lora") {
      if (event.lora.event === "link-dead") this.counts.linksDead++;
      world.note(JSON.stringify(event.lora));
    }
    if (event.event === "lora-state") world.note("uplink", event.condition, event.detail ?? "");
  }

  /** What the agent asks of the wallet, without the socket between them. */
  #client(process: HubProcess): WalletClient {
    const { wallet } = this.#parts;
    const ask = async <T>(request: WalletRequest, read: (fields: Parameters<typeof readHello>[0]) => T): Promise<T> => {
      if (!process.isAlive) return new Promise(() => undefined);
      try {
        return wallet.ask(request, read);
      } catch (error) {
        throw error instanceof WalletAway ? new WalletUnavailable("the wallet has ended") : error;
      }
    };
    const client: Pick<WalletClient, "hello" | "seal" | "read" | "release"> = {
      hello: () => ask({ type: "hello" }, readHello),
      seal: (request: Omit<SealRequest, "type">) => ask({ type: "seal", ...request }, readSealAnswer),
      read: (from, to, epoch, bare = false) =>
        ask({ type: "read", from, to, ...(epoch !== undefined && { epoch }), ...(bare && { bare }) }, readReadAnswer),
      release: (receipt) => ask({ type: "release", receipt }, readReleaseAnswer),
    };
    return client as WalletClient;
  }

  #store(process: HubProcess): LoraStateStore {
    const { timing } = this.#parts;
    return {
      read: async () => this.#state,
      write: (bytes) =>
        new Promise((resolve) => {
          timing.after(stateWriteMs, () => {
            // One that is killed meanwhile has written it or not: here it has not.
            if (!process.isAlive) return;
            this.#state = bytes;
            resolve();
          });
        }),
    };
  }
}

function meterConfiguration(index: number, slotS: number): MeterConfiguration {
  return {
    ...{ index, name: `meter ${index}`, line: "bus", unit: index + 1, profile: "eastron-sdm630" },
    ...{ intervalS: slotS, codes: loraCodes, powerMaxW: 0 },
  };
}

function fail(what: string): never {
  throw new Error(what);
}
