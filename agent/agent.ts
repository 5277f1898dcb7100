/** The agent: its meters' loops, the sealing of their rows, the forwarding of records, one status of it all. */
import type { ModbusLine } from "../drivers/modbus/line.ts";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { BackOff } from "../platform/back-off.ts";
import type { Clock } from "../platform/clock.ts";
import { multibaseOf } from "../protocol/public-key.ts";
import { decodeReceipt } from "../protocol/receipt.ts";
import { type WalletHello, WalletRefusal } from "../protocol/wallet-message.ts";
import type { HubConfiguration } from "./configuration.ts";
import type { AgentEvent } from "./event.ts";
import { Forwarder } from "./forwarder.ts";
import { MqttUplink } from "./mqtt-uplink.ts";
import { pause, Rest } from "./pause.ts";
import {
  keepStartGap,
  lineOf,
  type PolledMeter,
  polledMeter,
  pollMeter,
  type ReadingPathOptions,
  sealDue,
  sealRows,
} from "./reading-path.ts";
import { WalletClient, WalletUnavailable } from "./wallet-client.ts";

const tickMs = 1_000;

export interface AgentOptions {
  readonly configuration: HubConfiguration;
  readonly profileOf: (id: string) => MeterProfile;
  readonly clock: Clock;
  readonly emit: (event: AgentEvent) => void;
  /** False: seal and forward what is there, read no meter. */
  readonly polling: boolean;
}

/** What the agent says of itself. Times in Unix seconds and milliseconds as named. */
export interface AgentStatus {
  readonly device: string | undefined;
  readonly wallet: "connected" | "disconnected";
  readonly uplink: { readonly address: string; readonly connected: boolean; readonly detail: string } | undefined;
  readonly sealed: number;
  readonly acknowledged: number;
  readonly waiting: number;
  readonly meters: readonly {
    readonly name: string;
    readonly index: number;
    readonly line: string;
    readonly lastTimeS: number;
    readonly lastStatus: string;
    readonly unsealedRows: number;
    readonly missedSlots: number;
  }[];
}

export class Agent {
  readonly #options: AgentOptions;
  readonly #wallet: WalletClient;
  readonly #forwarder = new Forwarder();
  readonly #meters: PolledMeter[];
  readonly #lines: ReadonlyMap<string, ModbusLine>;
  readonly #path: ReadingPathOptions;
  readonly #polling = new AbortController();
  readonly #ending = new AbortController();
  readonly #news = new Rest();
  readonly #pollLoops: Promise<void>[] = [];
  readonly #loops: Promise<void>[] = [];
  #uplink: MqttUplink | undefined;
  #uplinkDetail = "";
  #walletConnected = false;
  #hello: WalletHello | undefined;
  #receipts: Promise<void> = Promise.resolve();

  constructor(options: AgentOptions) {
    const { configuration, clock, emit } = options;
    this.#options = options;
    this.#wallet = new WalletClient(configuration.walletSocket, (connected, detail) => {
      this.#walletConnected = connected;
      emit({ event: "wallet", state: connected ? "connected" : "disconnected", ...(detail && { detail }) });
    });
    this.#lines = new Map(configuration.lines.map((line) => [line.name, lineOf(line)]));
    this.#meters = configuration.meters.map((meter) =>
      polledMeter(meter, options.profileOf(meter.profile), this.#lines.get(meter.line) as ModbusLine),
    );
    this.#path = {
      wallet: this.#wallet,
      sealEveryS: configuration.sealEveryS,
      clock,
      emit,
      onSealed: (sequence) => {
        this.#forwarder.sealed(sequence, clock.monotonicMs());
        this.#news.wake();
      },
    };
  }

  /** Waits for the wallet, then runs until stop(). Throws where the wallet's policy cannot serve this configuration. */
  async start(): Promise<void> {
    const hello = await this.#wallet.connected(this.#ending.signal);
    this.#resume(hello);
    for (const meter of this.#options.polling ? this.#meters : []) {
      const known = hello.meters.find((item) => item.index === meter.configuration.index);
      keepStartGap(meter, known?.lastTimeS ?? 0, this.#path);
      this.#pollLoops.push(pollMeter(meter, this.#path, this.#polling.signal));
      this.#loops.push(sealRows(meter, this.#path, this.#ending.signal));
    }
    this.#startUplink(multibaseOf(hello.publicKey));
    this.#loops.push(this.#forwardLoop());
  }

  #resume(hello: WalletHello): void {
    this.#hello = hello;
    const sealed = hello.nextSequence - 1;
    this.#forwarder.begin(hello.through, sealed);
    this.#options.emit({ event: "resumed", sealed, acknowledged: hello.through });
  }

  #startUplink(device: string): void {
    const { mqtt } = this.#options.configuration;
    if (!mqtt) return;
    const uplink = new MqttUplink({
      configuration: mqtt,
      device,
      onReceipt: (receipt) => {
        this.#receipts = this.#receipts.then(() => this.#takeReceipt(receipt));
      },
      onState: (connected, detail = "") => {
        this.#uplinkDetail = detail;
        const state = connected ? "connected" : "disconnected";
        this.#options.emit({ event: "uplink", state, address: uplink.address, ...(detail && { detail }) });
        if (connected) this.#forwarder.restart();
        this.#news.wake();
      },
    });
    this.#uplink = uplink;
    uplink.start();
  }

  /** Sends what waits whenever there is something to send, room for it and a connection. */
  async #forwardLoop(): Promise<void> {
    const backOff = new BackOff({ firstMs: 100, longestMs: 5_000 });
    while (!this.#ending.signal.aborted) {
      try {
        if (!this.#walletConnected) await this.#meetWalletAgain();
        await this.#forward();
        backOff.reset();
        await this.#news.rest(tickMs, this.#ending.signal);
      } catch (error) {
        if (!(error instanceof WalletUnavailable)) throw error;
        await pause(backOff.next(), this.#ending.signal);
      }
    }
  }

  /** After the wallet was away: what is sealed and released is what it says. */
  async #meetWalletAgain(): Promise<void> {
    this.#resume(await this.#wallet.hello());
  }

  async #forward(): Promise<void> {
    const { clock, emit } = this.#options;
    if (this.#forwarder.isSilent(clock.monotonicMs())) this.#forwarder.restart(true);
    while (this.#uplink?.isConnected) {
      const range = this.#forwarder.next();
      if (!range) return;
      const { records } = await this.#wallet.read(range.from, range.to);
      const sent: number[] = [];
      for (const [sequence, record] of records) {
        if (!this.#uplink.publish(record)) break;
        sent.push(sequence);
        emit({ event: "published", sequence });
      }
      if (sent.length < records.length) return;
      // An answer that was cut for its length is shorter than asked for; an empty one means that nothing of it exists.
      const complete = records.length === 0 || (records.at(-1)?.[0] ?? 0) === range.to;
      this.#forwarder.published(range, sent, complete, clock.monotonicMs());
    }
  }

  /** The agent only carries a receipt: the wallet verifies it, and what it then says is released is released. */
  async #takeReceipt(receipt: Uint8Array): Promise<void> {
    const { clock, emit } = this.#options;
    try {
      const { through } = await this.#wallet.release(receipt);
      const ranges = decodeReceipt(receipt).content.ranges.map((range) => [range.first, range.last] as const);
      const before = this.#forwarder.through;
      const receiptMs = this.#forwarder.released(through, ranges, clock.monotonicMs());
      if (through > before) emit({ event: "acknowledged", through, receiptMs });
      this.#news.wake();
    } catch (error) {
      if (error instanceof WalletRefusal)
        emit({ event: "refused", by: "wallet", reason: error.reason, detail: error.message });
      else if (!(error instanceof WalletUnavailable)) throw error; // the node's next receipt says the same and more
    }
  }

  /** Stops polling; what was read is sealed, what is sealed goes on being forwarded. */
  async stopPolling(): Promise<void> {
    this.#polling.abort();
    await Promise.all(this.#pollLoops);
    for (const meter of this.#meters) await sealDue(meter, this.#path, true);
  }

  async stop(): Promise<void> {
    await this.stopPolling();
    this.#ending.abort();
    this.#news.wake();
    await Promise.all([...this.#lines.values()].map((line) => line.close()));
    await Promise.all(this.#loops);
    await this.#uplink?.stop();
    await this.#receipts;
    this.#wallet.close();
  }

  get hello(): WalletHello | undefined {
    return this.#hello;
  }

  status(): AgentStatus {
    const uplink = this.#uplink;
    return {
      device: this.#hello && multibaseOf(this.#hello.publicKey),
      wallet: this.#walletConnected ? "connected" : "disconnected",
      uplink: uplink && { address: uplink.address, connected: uplink.isConnected, detail: this.#uplinkDetail },
      sealed: this.#forwarder.highest,
      acknowledged: this.#forwarder.through,
      waiting: this.#forwarder.waiting,
      meters: this.#meters.map(({ configuration, line, lastS, lastStatus, buffer, missed }) => ({
        name: configuration.name,
        index: configuration.index,
        line: line.description,
        lastTimeS: lastS ?? 0,
        lastStatus,
        unsealedRows: buffer.length,
        missedSlots: missed,
      })),
    };
  }
}
