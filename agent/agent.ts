/** The agent: its meters' loops, the sealing of their rows, the forwarding of records, one status of it all. */
import { uptime } from "node:os";
import type { ModbusLine } from "../drivers/modbus/line.ts";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { BackOff } from "../platform/back-off.ts";
import type { Clock } from "../platform/clock.ts";
import { multibaseOf } from "../protocol/public-key.ts";
import type { WalletHello } from "../protocol/wallet-hello.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import { type AgentStatus, meterStatus } from "./agent-status.ts";
import { BacklogPace, type BacklogStatus, RowsOfRecord } from "./backlog.ts";
import type { HubConfiguration } from "./configuration.ts";
import { EpochForwarders } from "./epoch-forwarders.ts";
import type { AgentEvent } from "./event.ts";
import type { SequenceRange } from "./forwarder.ts";
import { FreshRecords, type SequencedRecord } from "./fresh-records.ts";
import { LineTurns } from "./line-turns.ts";
import type { LoraCarrier } from "./lora-carrier.ts";
import { MqttUplink } from "./mqtt-uplink.ts";
import { pause, Rest } from "./pause.ts";
import { checkPolicy } from "./policy-check.ts";
import {
  keepStartGap,
  lineOf,
  type PolledMeter,
  polledMeter,
  pollMeter,
  type ReadingPathOptions,
  sealRows,
} from "./reading-path.ts";
import { ReceiptTaking } from "./receipt-taking.ts";
import { closeBatch, fullPlan, lose, type MeterRows, type RowPlan, sealDue } from "./row-sealing.ts";
import { uplinkFor } from "./uplink.ts";
import { WalletClient, WalletUnavailable } from "./wallet-client.ts";

const tickMs = 1_000;
/** So long after a boot it may be one of many of the same minute: a power cut has ended. */
const bootedLatelyS = 600;
/** How often the wallet is asked what it has sealed by itself (events, batches that closed). */
const helloEveryMs = 30_000;
/** How long the end waits for a reading that is under way before its line is closed. */
const lastReadingMs = 2_000;

export interface AgentOptions {
  readonly configuration: HubConfiguration;
  readonly profileOf: (id: string) => MeterProfile;
  readonly clock: Clock;
  readonly emit: (event: AgentEvent) => void;
  /** False: seal and forward what is there, read no meter. */
  readonly polling: boolean;
  /** Made where the configuration has it; else its modules are not even loaded. */
  readonly lora?: LoraCarrier;
}

export class Agent {
  readonly #options: AgentOptions;
  readonly #wallet: WalletClient;
  readonly #forwarders: EpochForwarders;
  readonly #meters: PolledMeter[];
  readonly #lines: ReadonlyMap<string, ModbusLine>;
  readonly #path: ReadingPathOptions;
  readonly #polling = new AbortController();
  readonly #ending = new AbortController();
  readonly #news = new Rest();
  readonly #pollLoops: Promise<void>[] = [];
  readonly #loops: Promise<void>[] = [];
  readonly #fresh = new FreshRecords();
  readonly #pace = new BacklogPace();
  readonly #rowsOfRecord: RowsOfRecord;
  #uplink: MqttUplink | undefined;
  #uplinkDetail = "";
  #walletConnected = false;
  /** False until the wallet was asked for its state since it was connected last. */
  #walletMet = false;
  #hello: WalletHello | undefined;
  #helloMs = 0;
  readonly #receipts: ReceiptTaking;

  constructor(options: AgentOptions) {
    const { configuration, clock, emit } = options;
    this.#options = options;
    this.#forwarders = new EpochForwarders(configuration.windowBytes);
    this.#rowsOfRecord = new RowsOfRecord(
      configuration.sealEveryS,
      configuration.meters.map(({ intervalS }) => intervalS),
    );
    this.#wallet = new WalletClient(configuration.walletSocket, (connected, detail) => {
      this.#walletConnected = connected;
      this.#walletMet = false;
      emit({ event: "wallet", state: connected ? "connected" : "disconnected", ...(detail && { detail }) });
    });
    this.#lines = new Map(configuration.lines.map((line) => [line.name, lineOf(line)]));
    this.#receipts = new ReceiptTaking({
      ...{ wallet: this.#wallet, forwarders: this.#forwarders, monotonicMs: clock.monotonicMs, emit },
      onTaken: (refused) => {
        if (refused) this.#helloMs = Number.NEGATIVE_INFINITY;
        this.#wakeUplinks();
      },
    });
    const plans = plansOf(options);
    const turns = new Map(configuration.lines.map((line) => [line.name, new LineTurns()]));
    this.#meters = configuration.meters.map((meter) =>
      polledMeter(
        meter,
        options.profileOf(meter.profile),
        this.#lines.get(meter.line) as ModbusLine,
        turns.get(meter.line),
        plans,
      ),
    );
    this.#path = {
      wallet: this.#wallet,
      sealEveryS: configuration.sealEveryS,
      clock,
      emit,
      onRecords: (records) => {
        if (this.#uplink?.isConnected) this.#fresh.keep(records);
      },
      onSealed: (sequence, rows, plan) => {
        this.#rowsOfRecord.note(rows);
        if (plan > 0 && this.#hello) options.lora?.sealed(this.#hello.epoch, sequence);
        this.#forwarders.running.sealed(sequence, clock.monotonicMs());
        this.#wakeUplinks();
      },
    };
  }

  #wakeUplinks(): void {
    this.#news.wake();
    this.#options.lora?.news();
  }

  /**
   * Waits for the wallet, then runs until stop(), and resolves once it runs. Throws {@link PolicyMismatch} where the wallet's
   * policy cannot serve this configuration.
   */
  async start(): Promise<void> {
    const hello = await this.#wallet.connected(this.#ending.signal);
    this.#ending.signal.throwIfAborted();
    const { polling, configuration, lora, emit } = this.#options;
    if (polling) checkPolicy(configuration, hello);
    this.#resume(hello);
    const onReceipt = (receipt: Uint8Array): void => this.#receipts.push(receipt);
    lora?.start({ wallet: this.#wallet, forwarders: this.#forwarders, emit, onReceipt });
    if (polling && !this.#polling.signal.aborted) this.#startPolling(hello);
    this.#loops.push(this.#forwardLoop(), this.#receipts.run(this.#ending.signal));
  }

  #startPolling(hello: WalletHello): void {
    for (const meter of this.#meters) {
      const known = hello.meters.find((item) => item.index === meter.configuration.index);
      keepStartGap(meter, known?.lastTimeS ?? 0, this.#path);
      this.#pollLoops.push(pollMeter(meter, this.#path, this.#polling.signal));
      this.#loops.push(sealRows(meter, this.#path, this.#ending.signal));
    }
  }

  /** What is sealed and released is what the wallet says, at each meeting. */
  #resume(hello: WalletHello): void {
    const sealed = hello.nextSequence - 1;
    this.#forwarders.meet(hello, true);
    this.#fresh.clear();
    this.#walletMet = true;
    this.#keepHello(hello);
    this.#options.emit({ event: "resumed", sealed, acknowledged: hello.through });
    const device = multibaseOf(hello.nameKey);
    if (this.#uplink?.device === device) return;
    const before = this.#uplink;
    this.#uplink = this.#startUplink(device); // another key is another device, with topics of its own
    void before?.stop();
  }

  #keepHello(hello: WalletHello): void {
    this.#hello = hello;
    this.#helloMs = this.#options.clock.monotonicMs();
  }

  #startUplink(device: string): MqttUplink | undefined {
    const { mqtt, mqttFallbacks = [] } = this.#options.configuration;
    if (!mqtt) return undefined;
    const uplink = new MqttUplink({
      brokers: [mqtt, ...mqttFallbacks],
      device,
      hasJustBooted: uptime() < bootedLatelyS,
      onReceipt: (receipt) => this.#receipts.push(receipt),
      onState: (connected, detail = "") => {
        this.#uplinkDetail = detail;
        const state = connected ? "connected" : "disconnected";
        this.#options.emit({ event: "uplink", state, address: uplink.address, ...(detail && { detail }) });
        if (connected) this.#forwarders.restart();
        this.#news.wake();
      },
    });
    uplink.start();
    return uplink;
  }

  /** Sends what waits whenever there is something to send, room for it and a connection. */
  async #forwardLoop(): Promise<void> {
    const { signal } = this.#ending;
    const backOff = new BackOff({ firstMs: 100, longestMs: 5_000 });
    while (!signal.aborted) {
      try {
        await this.#askWallet();
        await this.#forward();
        this.#options.lora?.look();
        backOff.reset();
        await this.#news.rest(tickMs, signal);
      } catch (error) {
        if (!(error instanceof WalletUnavailable)) throw error;
        await pause(backOff.next(), signal);
      }
    }
  }

  async #askWallet(): Promise<void> {
    if (!this.#walletMet) {
      this.#resume(await this.#wallet.hello());
    } else if (this.#options.clock.monotonicMs() - this.#helloMs > helloEveryMs) {
      const hello = await this.#wallet.hello();
      if (!this.#walletMet) return; // it was away meanwhile
      this.#keepHello(hello);
      this.#forwarders.meet(hello, false);
    }
  }

  /** Reads and publishes while the uplink takes records and the window has room. */
  async #forward(): Promise<void> {
    if (this.#hello?.recordForm === "withheld") return; // nobody is pinned to encrypt them to: `ecp status` says so
    const { clock, emit } = this.#options;
    this.#forwarders.expire(clock.monotonicMs());
    this.#pace.note(clock.monotonicMs(), this.#forwarders.unstored);
    for (;;) {
      const uplinks = this.#uplink ? [this.#uplink] : [];
      const next = this.#forwarders.next((lane) => uplinkFor(uplinks, lane) !== undefined);
      const uplink = next && uplinkFor(uplinks, next.lane);
      if (!next || !uplink) return;
      const { epoch, forwarder, lane, range } = next;
      const isRunning = forwarder === this.#forwarders.running;
      const fresh = isRunning ? this.#fresh.take(range) : undefined;
      const records = fresh ?? (await this.#read(range, epoch));
      if (records === undefined) return;
      const sent: [sequence: number, bytes: number][] = [];
      for (const [sequence, record] of records) {
        const onLeft = (): void => {
          forwarder.left(sequence, clock.monotonicMs());
          this.#news.wake();
        };
        if (!uplink.publish(record, lane, onLeft)) break;
        sent.push([sequence, record.length]);
        emit({ event: "published", sequence });
      }
      if (sent.length < records.length) return; // the connection has gone, and all begins again with the next
      // An answer that was cut for its length is shorter than asked for; an empty one means that nothing of it exists.
      const complete = records.length === 0 || (records.at(-1)?.[0] ?? 0) === range.to;
      forwarder.published(range, sent, complete, clock.monotonicMs());
    }
  }

  /** Undefined where the wallet has come to withhold its records since it was met: it is asked for its state then. */
  async #read({ from, to }: SequenceRange, epoch: number): Promise<readonly SequencedRecord[] | undefined> {
    try {
      return (await this.#wallet.read(from, to, epoch)).records;
    } catch (error) {
      if (!(error instanceof WalletRefusal) || error.reason !== "no-recipient") throw error;
      this.#helloMs = Number.NEGATIVE_INFINITY;
      return undefined;
    }
  }

  /** Stops polling; what was read is sealed, what is sealed goes on being forwarded. */
  async stopPolling(): Promise<void> {
    this.#polling.abort();
    await Promise.all(this.#pollLoops);
    await this.#sealAll();
    for (const rows of this.#allRows) await closeBatch(rows, this.#path);
  }

  get #allRows(): MeterRows[] {
    return this.#meters.flatMap(({ rows }) => rows);
  }

  async #sealAll(): Promise<void> {
    for (const rows of this.#allRows) {
      if (rows.buffer.length > 0) await sealDue(rows, this.#path, true);
      if (!this.#walletConnected) return;
    }
  }

  /** Ends: what was read is sealed where the wallet answers, and counted as lost where it does not. */
  async stop(): Promise<void> {
    this.#polling.abort();
    const polled = Promise.all(this.#pollLoops);
    const hurry = new AbortController();
    await Promise.race([polled.finally(() => hurry.abort()), pause(lastReadingMs, hurry.signal)]);
    await Promise.all([...this.#lines.values()].map((line) => line.close()));
    await polled;
    await this.#sealAll();
    for (const rows of this.#allRows)
      if (rows.buffer.length > 0)
        lose(rows, rows.buffer.length, "the wallet was away when the agent ended", this.#options.emit);
    await this.#options.lora?.stop();
    if (this.#walletConnected) await this.#receipts.takeAll();
    this.#ending.abort();
    await Promise.all(this.#loops);
    await this.#uplink?.stop();
    this.#wallet.close();
  }

  get hello(): WalletHello | undefined {
    return this.#hello;
  }

  #backlog(): BacklogStatus {
    const { unstored, waiting, recordBytes, oldestSealedMs } = this.#forwarders;
    const { clock } = this.#options;
    const nowMs = clock.monotonicMs();
    const remainingS = this.#pace.remainingS(nowMs, unstored);
    return {
      records: unstored,
      stored: waiting - unstored,
      rows: Math.round(unstored * this.#rowsOfRecord.mean),
      bytes: Math.round(unstored * recordBytes),
      ...(oldestSealedMs !== undefined && {
        sinceS: Math.round((clock.wallMs() - (nowMs - oldestSealedMs)) / 1_000),
      }),
      ...(remainingS !== undefined && { remainingS }),
    };
  }

  status(): AgentStatus {
    const uplink = this.#uplink;
    const lora = this.#options.lora?.status();
    return {
      device: this.#hello && multibaseOf(this.#hello.nameKey),
      wallet: this.#walletConnected ? "connected" : "disconnected",
      uplink: uplink && { address: uplink.address, connected: uplink.isConnected, detail: this.#uplinkDetail },
      ...(lora && { lora }),
      sealed: this.#forwarders.running.highest,
      acknowledged: this.#forwarders.running.through,
      waiting: this.#forwarders.waiting,
      backlog: this.#backlog(),
      meters: this.#meters.map(meterStatus),
    };
  }
}

/** Where there is no broker only what LoRaWAN carries is sealed: the rest could never leave. */
function plansOf({ configuration, lora }: AgentOptions): readonly RowPlan[] {
  if (!configuration.lora) return [fullPlan];
  if (!lora) throw new TypeError("a configuration with LoRaWAN, and no carrier for it");
  return configuration.mqtt ? [fullPlan, lora.plan] : [lora.plan];
}
