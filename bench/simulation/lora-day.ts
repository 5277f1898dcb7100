/**
 * A day of a hub that reaches its full node by LoRaWAN only, in virtual time: real wallet, rows, uplink, modem driver, SCHC, intake, path of
 * records and store; simulated modem, radio with losses, gateway and network server between them. The gateway is away for hours, agent and
 * full node are killed; in the end every row must be in the store as it was read, and the radio's own meter must have seen no sub-band
 * used for longer than the law allows in any hour.
 */
import { isDeepStrictEqual } from "node:util";
import type { ModemFamily } from "../../drivers/lora/modem.ts";
import type { RegionName } from "../../drivers/lora/region.ts";
import { chirpStack } from "../../fullnode/chirpstack.ts";
import { thingsStack } from "../../fullnode/things-stack.ts";
import { statuses } from "../../protocol/reading-status.ts";
import type { Row } from "../../protocol/record.ts";
import { readEnrolAnswer } from "../../protocol/wallet-message.ts";
import type { SimulatedModem } from "../../simulator/lora-modem.ts";
import { createRadioWorld, modemTransport, type RadioWorld } from "../../simulator/radio-world.ts";
import { emptyPolicy } from "../../wallet/policy.ts";
import { LoraHub } from "./lora-hub.ts";
import { LoraNode } from "./lora-node.ts";
import { WorldTiming } from "./lora-timing.ts";
import { SealedTruth } from "./sealed-truth.ts";
import { SimulatedWallet } from "./simulated-wallet.ts";
import type { SimulationGround } from "./simulation.ts";
import { VirtualWorld, worldStartS } from "./virtual-world.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const segments = 64;
const lossPercent = 10;
const nodeKills = 3;
/** The first with a reboot, the second in the middle of a frame, the others where it hurts most: when the hour's airtime is spent. */
const agentKills = 5;
const lookMs = 1_000;
/** From the broker's client to the node's intake; past 80 ms or so the answer misses the windows of the frame. */
const brokerDelayMaxMs = 150;
const rowsPage = 10_000;
/**
 * What waits at the end of the day has so long to come through. Where the last packet was acknowledged and its receipt lost, the record is
 * sent again a day later only: on other days the receipt of the next one has released it by then.
 */
const calmLongestMs = 6 * dayMs;

export interface LoraDayOptions {
  readonly seed: number;
  readonly dataRate: number;
  readonly family: ModemFamily;
  readonly region?: RegionName;
  /** The server's ADR sets another data rate every hour or so, and asks things that take room in frames. */
  readonly changesDataRate?: boolean;
  /** Whose events and commands, and whose time until the first receive window. */
  readonly server: "chirpstack" | "tts";
  /** False, as a control: the agent's uplink keeps nothing over its end. */
  readonly keepsState: boolean;
}

export interface LoraDayResult {
  readonly violations: readonly string[];
  readonly trace: readonly string[];
  readonly figures: {
    readonly rows: number;
    readonly missing: number;
    readonly records: number;
    readonly frames: number;
    readonly airtimeS: number;
    /** Of the sub-band that had most, in its fullest hour. */
    readonly worstHourS: number;
    /** How often a frame made a rolling hour exceed what a sub-band allows. */
    readonly excesses: number;
    readonly duplicates: number;
    readonly kills: number;
    readonly calmMinutes: number;
    readonly events: number;
  };
}

const meters = 2;
const slotS = 900;
const batchS = 3_600;
const wattsOfMeter = [1_800, 700];

/** Wh imported and exported, rising with the time; now and then nobody answers. */
function meterRow(meter: number, timeS: number): Row {
  if (Math.floor(timeS / slotS) % 17 === meter) return { timeS, status: statuses.timeout, values: [] };
  const wh = Math.floor(((timeS - worldStartS) * (wattsOfMeter[meter] as number)) / 3_600);
  return { timeS, status: statuses.good, values: [41_237_512 + wh, 18_904_377 + Math.floor(wh / 3)] };
}

class LoraDay {
  readonly world: VirtualWorld;
  readonly violations: string[] = [];
  readonly #options: LoraDayOptions;
  readonly #timing: WorldTiming;
  readonly #truth = new SealedTruth();
  readonly #wallet: SimulatedWallet;
  readonly #radio: RadioWorld;
  readonly #node: LoraNode;
  readonly #hub: LoraHub;
  readonly #modem: SimulatedModem;
  /** The node ends with the first frame after each of these. */
  readonly #nodeKillsFromMs: number[] = [];
  #isDay = true;
  #agentKills = 0;
  #nodeKills = 0;

  constructor(ground: SimulationGround, options: LoraDayOptions) {
    const { seed, dataRate, family, server, keepsState, region = "EU868" } = options;
    this.#options = options;
    this.world = new VirtualWorld(seed);
    const { world } = this;
    const timing = new WorldTiming(world);
    this.#timing = timing;
    const meter = { profile: "eastron-sdm630", slotS, powerMaxW: 0, rowsPerMinute: 6_000, resolutionWh: 1 };
    const policy = {
      ...emptyPolicy,
      meters: Array.from({ length: meters }, (_, index) => ({
        ...{ ...meter, index, name: `meter ${index}`, installation: 0, installationReason: "" },
      })),
      plans: [{ plan: 1, slotS, sealEveryS: batchS }],
    };
    this.#wallet = new SimulatedWallet(world, this.#truth, policy, { segments, believesTail: false });
    this.#radio = createRadioWorld({
      ...{ timing, region, dataRate, server, lossUp: lossPercent / 100, lossDown: lossPercent / 100 },
      random: () => world.random.uint32() / 2 ** 32,
      wallMs: (ms) => worldStartS * 1_000 + ms,
    });
    this.#node = new LoraNode({
      ...{ world, timing, emptyStore: ground.emptyStore, parent: ground.folder },
      server: server === "tts" ? thingsStack(this.#radio.applicationId) : chirpStack(this.#radio.applicationId),
      command: (topic, json) => timing.after(5, () => this.#radio.command(topic, json)),
    });
    this.#radio.onUplinkJson((topic, json) => this.#event(topic, json));
    this.#wallet.pin({ name: "node", publicKey: this.#node.keys.publicKey, share: this.#node.keys.share });
    // A module that is delivered with its own guard switched off: nothing but the uplink's budget keeps the law.
    this.#modem = this.#radio.modem(family, { dutyCycle: "off" });
    this.#hub = new LoraHub({
      rx1DelayS: server === "tts" ? 5 : 1,
      ...{
        world,
        timing,
        wallet: this.#wallet,
        openTransport: modemTransport(this.#modem),
        family,
        region,
        keepsState,
      },
      ...{ meters, slotS, batchS, isReading: () => this.#isDay, read: meterRow },
    });
  }

  get #devEui(): string {
    return this.#radio.devices[0]?.devEui ?? "";
  }

  async run(): Promise<LoraDayResult> {
    const { world } = this;
    this.#wallet.start();
    world.every(5_000, () => this.#wallet.tick());
    await this.#node.start();
    await this.#node.enrol(this.#wallet.ask({ type: "enrol" }, readEnrolAnswer), this.#devEui, this.#wallet.name);
    this.#hub.start();
    this.#plant();
    await world.runUntil(dayMs);
    this.#isDay = false;
    const calmMs = await this.#calm();
    const missing = await this.#check();
    return this.#result(calmMs, missing);
  }

  #plant(): void {
    const { world } = this;
    const { random } = world;
    const gateway = this.#radio.gateways[0];
    const awayFromMs = random.integer(2 * hourMs, 8 * hourMs);
    const awayToMs = awayFromMs + random.integer(6 * hourMs, 8 * hourMs);
    this.#at(awayFromMs, () => {
      if (gateway) gateway.isOnline = false;
      world.note("gateway away");
    });
    this.#at(awayToMs, () => {
      if (gateway) gateway.isOnline = true;
      world.note("gateway back");
    });
    for (let i = 0; i < nodeKills; i++) {
      const fromMs = random.pick([random.integer(hourMs, awayFromMs), random.integer(awayToMs, dayMs - hourMs)]);
      this.#nodeKillsFromMs.push(fromMs);
    }
    this.#nodeKillsFromMs.sort((a, b) => a - b);
    this.#at(random.integer(hourMs, awayFromMs), () => this.#killAgent(true));
    // Late in the day at any moment, where the airtime is never spent.
    let notBeforeMs = random.integer(hourMs, dayMs / 2);
    world.every(lookMs, () => {
      const condition = this.#hub.carrier?.status()?.condition;
      if (this.#agentKills === 0 || this.#agentKills >= agentKills || world.nowMs < notBeforeMs) return;
      // Once the gateway is back, hours of readings wait for airtime.
      const isMoment =
        this.#agentKills === 1 ? condition === "sending" : condition === "duty-cycle" && world.nowMs > awayToMs;
      if (!isMoment && (world.nowMs < dayMs - hourMs || !this.#isDay)) return;
      notBeforeMs = world.nowMs + 2 * minuteMs;
      this.#killAgent(false);
    });
    // The modem loses its power: it has to join again.
    this.#at(random.integer(hourMs, dayMs - hourMs), () => this.#modem.reset());
    if (this.#options.changesDataRate) this.#planAdr();
    const { faults } = this.#radio.server;
    this.#at(random.integer(0, dayMs), () => {
      faults.publishes = 2;
    });
  }

  #planAdr(): void {
    const { random } = this.world;
    const { region = "EU868" } = this.#options;
    // US915 has five data rates of LoRa at 125 kHz and more; both have 0 to 3.
    const dataRateMax = region === "EU868" ? 5 : 3;
    this.world.every(hourMs / 2, () => {
      const { server } = this.#radio;
      if (random.chance(50)) server.setDataRate(this.#devEui, random.integer(0, dataRateMax));
      if (random.chance(30)) server.requestStatus(this.#devEui, random.integer(1, 5));
    });
  }

  /** An event of the network server reaches the broker. Now and then the node ends while it works on one. */
  #event(topic: string, json: string): void {
    const { world } = this;
    this.#at(world.random.integer(5, brokerDelayMaxMs), () => {
      this.#node.receive(topic, json);
      const nextMs = this.#nodeKillsFromMs[0];
      if (nextMs === undefined || world.nowMs < nextMs || !topic.endsWith("/up") || !this.#node.isRunning) return;
      this.#nodeKillsFromMs.shift();
      const awayMs = world.random.integer(5_000, 20 * minuteMs);
      this.#at(world.random.integer(0, 2 * brokerDelayMaxMs), () => this.#killNode(awayMs));
    });
  }

  #at(inMs: number, happen: () => void | Promise<void>): void {
    this.world.after(inMs, async () => {
      await happen();
      await this.#timing.settle();
    });
  }

  async #killNode(awayMs: number): Promise<void> {
    if (!this.#node.isRunning) return;
    this.#nodeKills++;
    await this.#node.kill();
    this.#at(awayMs, () => this.#node.start());
  }

  #killAgent(reboots: boolean): void {
    if (!this.#hub.isRunning) return;
    this.#agentKills++;
    if (reboots) this.#hub.reboot();
    else this.#hub.kill();
    this.#at(this.world.random.integer(500, minuteMs), () => this.#hub.start());
  }

  /** Until nothing waits any more. */
  async #calm(): Promise<number> {
    const { world } = this;
    const startMs = world.nowMs;
    while (world.nowMs - startMs < calmLongestMs) {
      await world.runUntil(world.nowMs + minuteMs);
      if (!this.#hub.isRunning || !this.#node.isRunning) continue;
      const { pendingRows, through, nextSequence } = this.#wallet.hello();
      if (pendingRows === 0 && through === nextSequence - 1) return world.nowMs - startMs;
    }
    const { pendingRows, through, nextSequence } = this.#wallet.hello();
    this.violations.push(
      `six days after the last reading, ${through} of ${nextSequence - 1} records are released, ${pendingRows} rows pending`,
    );
    return calmLongestMs;
  }

  /** Tells how many rows are not in the store as they were read. */
  async #check(): Promise<number> {
    const { store } = this.#node;
    const device = await store.device(this.#wallet.name);
    const found = new Map<string, unknown>();
    for (const row of device ? await store.rowsAfter(device.id, undefined, rowsPage) : []) {
      const key = `${row.meter}/${row.timeS}`;
      if (found.has(key)) this.violations.push(`row ${key} counts twice`);
      found.set(key, { status: row.status, values: row.values });
    }
    let missing = 0;
    for (const [key, { status, values }] of this.#hub.rows) {
      const stored = values.length === 0 ? [] : [2, values[0], 4, values[1]];
      if (isDeepStrictEqual(found.get(key), { status, values: stored })) continue;
      missing++;
      if (missing < 5)
        this.violations.push(`row ${key} is not in the store as it was read: ${JSON.stringify(found.get(key))}`);
    }
    if (found.size > this.#hub.rows.size) this.violations.push("the store has rows that nobody read");
    if (this.#hub.rows.size < (dayMs / 1_000 / slotS) * meters)
      this.violations.push(`${this.#hub.rows.size} rows were sealed, and some slots have none`);
    return missing;
  }

  #result(calmMs: number, missing: number): LoraDayResult {
    const meter = this.#radio.airtimeOf(this.#devEui);
    const bands = meter.subBands();
    const excesses = bands.reduce((sum, band) => sum + band.excesses, 0);
    const [hub, node] = [this.#hub, this.#node];
    if (excesses > 0) this.violations.push(`${excesses} frames went beyond what a sub-band allows in an hour`);
    if (meter.outside > 0) this.violations.push(`${meter.outside} frames outside every sub-band`);
    if (hub.refusals.length > 0) this.violations.push(`the wallet refused: ${hub.refusals.slice(0, 3).join("; ")}`);
    if (hub.counts.rowsLost > 0) this.violations.push(`${hub.counts.rowsLost} rows could not be sealed`);
    if (node.refused.some((reason) => reason !== "duplicate"))
      this.violations.push(`the node refused: ${[...new Set(node.refused)]}`);
    this.violations.push(...this.#truth.violations);
    return {
      violations: this.violations,
      trace: this.world.trace,
      figures: {
        rows: hub.rows.size,
        missing,
        records: this.#wallet.hello().nextSequence - 1,
        frames: meter.frames,
        airtimeS: Math.round(meter.totalMs / 1_000),
        worstHourS: Math.round(Math.max(0, ...bands.map((band) => band.worstHourMs)) / 100) / 10,
        excesses,
        duplicates: node.counts.duplicates,
        kills: this.#agentKills + this.#nodeKills,
        calmMinutes: Math.round(calmMs / minuteMs),
        events: this.world.happened,
      },
    };
  }

  async end(): Promise<void> {
    this.#hub.kill();
    this.#radio.close();
    await this.#node.remove();
  }
}

export async function simulateLoraDay(ground: SimulationGround, options: LoraDayOptions): Promise<LoraDayResult> {
  const day = new LoraDay(ground, options);
  try {
    return await day.run();
  } finally {
    await day.end();
  }
}
