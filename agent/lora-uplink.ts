/**
 * Records to a full node over a LoRaWAN modem: one frame at a time, each asked for at the modem (how long may it be), at the budget (is
 * there airtime) and in the state file (written before it goes) first. Nothing that a modem or a network says ends a record: only
 * a verified receipt does, and until then it is sent again at growing distances.
 */

import { DriverError, messageOf } from "../drivers/failure.ts";
import type { JoinOutcome, LoraDownlink, SendOutcome } from "../drivers/lora/modem.ts";
import { BackOff } from "../platform/back-off.ts";
import { fragmentPorts, receiptPort } from "../protocol/lorawan.ts";
import { Refusal } from "../protocol/refusal.ts";
import { type BudgetWait, type FrameCost, LoraBudget } from "./lora-budget.ts";
import { costAfter, costBefore, dutyCycleOf, joinCost, reserveFor } from "./lora-frame-cost.ts";
import { FrameLimit } from "./lora-frame-limit.ts";
import { JoinPolicy } from "./lora-join.ts";
import { emptyFrame, LoraOutbox, type OutgoingFrame, type Pending } from "./lora-outbox.ts";
import { usualRepeatDelaysMs } from "./lora-repeats.ts";
import { LoraRest } from "./lora-rest.ts";
import { budgetSentences, joinSentences, refusalSentences } from "./lora-sentences.ts";
import { decodeLoraState, encodeLoraState, type StateClock } from "./lora-state.ts";
import type { LoraCondition, LoraState, LoraStatus } from "./lora-status.ts";
import type { LoraUplinkOptions } from "./lora-uplink-options.ts";

const secondMs = 1_000;
const minuteMs = 60 * secondMs;
const hourMs = 60 * minuteMs;
const usualLinkDeadAfterMs = 24 * hourMs;
/** Waiting for airtime, it looks again after so long: something shorter may have come. */
const budgetLookMs = 15 * minuteMs;
const idleLookMs = hourMs;
/** A modem may join by itself meanwhile. */
const joinLookMs = 15 * minuteMs;
/** Somebody has to provision it. */
const keysLookMs = 5 * minuteMs;
const storeRetryMs = minuteMs;
const recordsRetryMs = 10 * secondMs;
/** What the modem said of itself last. */
interface ModemView {
  readonly joined: boolean;
  readonly dataRate?: number;
  readonly bytesMax?: number;
}

export class LoraUplink {
  readonly #o: LoraUplinkOptions;
  readonly #stateClock: StateClock;
  readonly #outbox: LoraOutbox;
  readonly #join: JoinPolicy;
  readonly #limit: FrameLimit;
  readonly #rest: LoraRest;
  readonly #modemBackOff: BackOff;
  readonly #refusedBackOff: BackOff;
  readonly #roomBackOff: BackOff;
  #budget: LoraBudget;
  #running: Promise<void> | undefined;
  #isStopped = false;
  #isLoaded = false;
  /** The modem answered to begin(), and nothing has gone wrong with it since. */
  #isReady = false;
  /** Why it is to be begun anew, after a rest. */
  #lostBy: string | undefined;
  #view: ModemView = { joined: false };
  /** How often the last frame was on the air: the server may want that of each (NbTrans). */
  #transmissions = 1;
  #joinDetail: string | undefined;
  #condition: LoraCondition = "stopped";
  #detail: string | undefined;
  #resumesAtMs: number | undefined;
  readonly #counts = {
    framesSent: 0,
    bytesSent: 0,
    joinRequests: 0,
    downlinks: 0,
    downlinksIgnored: 0,
    receipts: 0,
  };

  constructor(options: LoraUplinkOptions) {
    this.#o = options;
    const { timing, source, modem, emit, random, bootId, repeatDelaysMs = usualRepeatDelaysMs } = options;
    this.#stateClock = { clock: timing.clock, bootId };
    this.#outbox = new LoraOutbox({ source, emit, random, repeatDelaysMs });
    this.#join = new JoinPolicy(options.linkDeadAfterMs ?? usualLinkDeadAfterMs, random);
    this.#limit = new FrameLimit(options.region);
    this.#rest = new LoraRest(timing);
    this.#modemBackOff = new BackOff({ firstMs: secondMs, longestMs: 5 * minuteMs, random });
    this.#refusedBackOff = new BackOff({ firstMs: 2 * secondMs, longestMs: 5 * minuteMs, random });
    this.#roomBackOff = new BackOff({ firstMs: 30 * secondMs, longestMs: hourMs, random });
    this.#budget = new LoraBudget(this.#limits);
    source.onNews(() => this.#rest.wake());
    modem.onDownlink((downlink) => this.#received(downlink));
    modem.onLost((reason) => {
      this.#lose(reason);
      this.#rest.interrupt();
    });
  }

  get #limits() {
    const { region, fairUseSPerDay } = this.#o;
    const dutyCycle = dutyCycleOf(region);
    return {
      ...(dutyCycle !== undefined && { dutyCycle }),
      ...(fairUseSPerDay !== undefined && { fairUseMs: fairUseSPerDay * secondMs }),
    };
  }

  get #nowMs(): number {
    return this.#o.timing.clock.monotonicMs();
  }

  /** The modem's live data rate. */
  get dataRate(): number | undefined {
    return this.#view.dataRate;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends what is on its way, and gives the modem's port back. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#rest.end();
    await this.#o.modem.close();
    await this.#running;
    await this.#o.modem.close(); // its port, where it was being opened
    this.#say("stopped");
  }

  status(): LoraStatus {
    const nowMs = this.#nowMs;
    const { dataRate, bytesMax } = this.#view;
    const [dutyCycle, fairUse] = [this.#budget.dutyCycle(nowMs), this.#budget.fairUse(nowMs)];
    const sinceDownlinkMs = this.#join.silentMs(nowMs);
    const { family, firmware } = this.#o.modem;
    return {
      ...this.#state(nowMs),
      ...this.#counts,
      ...this.#outbox.status(nowMs),
      modem: firmware ? `${family}, ${firmware}` : family,
      region: this.#o.region,
      isJoined: this.#isReady && this.#view.joined,
      ...(dataRate !== undefined && { dataRate }),
      ...(bytesMax !== undefined && { bytesMax }),
      airtimeHourMs: this.#budget.airtimeMs("hour", nowMs),
      airtimeDayMs: this.#budget.airtimeMs("day", nowMs),
      ...(dutyCycle && { dutyCycle }),
      ...(fairUse && { fairUse }),
      ...(sinceDownlinkMs !== undefined && { sinceDownlinkMs }),
    };
  }

  #state(nowMs: number): LoraState {
    const resumesInMs = this.#resumesAtMs === undefined ? undefined : Math.max(0, this.#resumesAtMs - nowMs);
    return {
      condition: this.#condition,
      ...(this.#detail !== undefined && { detail: this.#detail }),
      ...(resumesInMs !== undefined && { resumesInMs }),
    };
  }

  #say(condition: LoraCondition, detail?: string, resumesInMs?: number): void {
    const isNew = condition !== this.#condition || detail !== this.#detail;
    const nowMs = this.#nowMs;
    this.#condition = condition;
    this.#detail = detail;
    this.#resumesAtMs = resumesInMs === undefined ? undefined : nowMs + resumesInMs;
    if (isNew) this.#o.onState(this.#state(nowMs));
  }

  async #run(): Promise<void> {
    while (!this.#isStopped) {
      try {
        if (!this.#isLoaded) await this.#load();
        else if (this.#lostBy !== undefined) await this.#restAway(this.#lostBy);
        else if (!this.#isReady) await this.#begin();
        else await this.#step();
      } catch (error) {
        if (!(error instanceof DriverError)) throw error;
        this.#lose(error.message);
      }
    }
  }

  #lose(reason: string): void {
    this.#isReady = false;
    this.#lostBy = reason;
    this.#view = { joined: false };
  }

  async #restAway(reason: string): Promise<void> {
    this.#lostBy = undefined;
    const delayMs = this.#modemBackOff.next();
    this.#say("modem-away", reason, delayMs);
    await this.#rest.rest(delayMs, false);
  }

  async #load(): Promise<void> {
    let bytes: Uint8Array | undefined;
    try {
      bytes = await this.#o.store.read();
    } catch (error) {
      this.#say("state-unwritable", `the state cannot be read: ${messageOf(error)}`, storeRetryMs);
      return this.#rest.rest(storeRetryMs, false);
    }
    this.#isLoaded = true;
    if (bytes === undefined) return;
    const nowMs = this.#nowMs;
    try {
      const { state, elapsedMs } = decodeLoraState(bytes, this.#stateClock);
      this.#budget = LoraBudget.restore(this.#limits, state.budget, elapsedMs, nowMs);
      this.#join.restore(state.join, elapsedMs, nowMs);
      this.#outbox.restore(state, elapsedMs, nowMs);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#budget = LoraBudget.exhausted(this.#limits, nowMs);
      this.#o.emit({ event: "state-spoilt", detail: error.message });
    }
  }

  /** True once it is durable. What is not written is written with the next frame, at the latest before it goes. */
  async #save(): Promise<boolean> {
    const nowMs = this.#nowMs;
    const [budget, join] = [this.#budget.state(nowMs), this.#join.state(nowMs)];
    const bytes = encodeLoraState({ budget, join, ...this.#outbox.state(nowMs) }, this.#stateClock);
    try {
      await this.#o.store.write(bytes);
      return true;
    } catch (error) {
      this.#say("state-unwritable", `the state cannot be written: ${messageOf(error)}`, storeRetryMs);
      return false;
    }
  }

  async #begin(): Promise<void> {
    const { joined } = await this.#o.modem.begin();
    if (this.#lostBy !== undefined) return;
    this.#view = { joined };
    this.#isReady = true;
  }

  /** One frame, one join request, or one rest. */
  async #step(): Promise<void> {
    this.#rest.looks();
    const nowMs = this.#nowMs;
    this.#outbox.tidy(nowMs);
    const isDead = this.#join.isLinkDead(nowMs) && this.#join.waitMs(nowMs) === 0;
    if (!this.#view.joined || isDead) return this.#joinStep(isDead);
    let pending: Pending | undefined;
    try {
      pending = await this.#outbox.pending(nowMs);
    } catch (error) {
      this.#say("no-records", `the wallet cannot be asked for records: ${messageOf(error)}`, recordsRetryMs);
      return this.#rest.rest(recordsRetryMs, true);
    }
    if (pending === undefined) return this.#restIdle();
    this.#view = await this.#o.modem.state();
    if (!this.#view.joined) return;
    const bytesMax = this.#limit.bytesMax(this.#view.dataRate, this.#view.bytesMax);
    const frame = this.#outbox.frame(pending, bytesMax, this.#nowMs);
    if (frame === undefined) return this.#restIdle();
    return frame === "no-room" ? this.#makeRoom(bytesMax) : this.#send(frame);
  }

  async #restIdle(): Promise<void> {
    // Batches are as long as the data rate wants, also the one before the first frame.
    if (this.#view.dataRate === undefined) this.#view = await this.#o.modem.state();
    if (!this.#view.joined) return;
    const nowMs = this.#nowMs;
    const dueMs = this.#outbox.nextDueMs(nowMs) ?? Number.POSITIVE_INFINITY;
    this.#say("idle");
    return this.#rest.rest(Math.max(secondMs, Math.min(idleLookMs, dueMs - nowMs)), true);
  }

  async #joinStep(isDead: boolean): Promise<void> {
    this.#view = await this.#o.modem.state();
    const nowMs = this.#nowMs;
    if (this.#view.joined && !isDead) return; // it did so by itself
    const waitMs = this.#join.waitMs(nowMs);
    if (waitMs > 0) {
      this.#say("not-joined", this.#joinDetail, waitMs);
      return this.#rest.rest(Math.min(waitMs, joinLookMs), false);
    }
    const cost = joinCost(this.#o.region);
    const wait = this.#budget.waitFor(cost, nowMs);
    if (wait) return this.#awaitBudget(wait, false);
    if (isDead) this.#o.emit({ event: "link-dead", sinceDownlinkMs: this.#join.silentMs(nowMs) ?? 0 });
    this.#budget.reserve(cost);
    this.#join.requested(nowMs);
    this.#say("joining");
    if (!(await this.#save())) {
      this.#budget.settle(undefined, this.#nowMs);
      this.#join.notRequested(0, this.#nowMs);
      return this.#rest.rest(storeRetryMs, false);
    }
    this.#counts.joinRequests++;
    this.#joined(await this.#o.modem.join(), cost);
    await this.#save();
  }

  #joined({ kind, detail, retryInMs }: JoinOutcome, cost: FrameCost): void {
    const nowMs = this.#nowMs;
    const isOnAir = kind !== "busy" && kind !== "duty-cycle" && kind !== "no-keys";
    this.#budget.settle(isOnAir ? cost : undefined, nowMs);
    if (kind === "joined") {
      this.#join.joined(nowMs);
      this.#view = { joined: true };
      this.#modemBackOff.reset();
      this.#refusedBackOff.reset();
      this.#o.emit({ event: "joined" });
      return;
    }
    if (!isOnAir) this.#join.notRequested(kind === "no-keys" ? keysLookMs : this.#refusedFor(retryInMs), nowMs);
    // Begun anew, which tells whether it is there: one that refuses to join, as without keys, has not gone away.
    if (kind === "fault") this.#isReady = false;
    this.#joinDetail = detail === undefined ? joinSentences[kind] : `${joinSentences[kind]} (${detail})`;
    this.#o.emit({ event: "join-failed", outcome: kind, nextInMs: Math.ceil(this.#join.waitMs(nowMs)) });
  }

  #refusedFor(retryInMs: number | undefined): number {
    const delayMs = this.#refusedBackOff.next();
    return retryInMs === undefined ? delayMs : retryInMs + secondMs * this.#o.random();
  }

  #awaitBudget({ limit, waitMs }: BudgetWait, forNews: boolean): Promise<void> {
    if (waitMs === Number.POSITIVE_INFINITY) {
      this.#say(limit, "one frame is longer than the whole allowance at this data rate");
      return this.#rest.rest(budgetLookMs, forNews);
    }
    this.#say(limit, budgetSentences[limit], waitMs);
    return this.#rest.rest(Math.min(waitMs, budgetLookMs), forNews);
  }

  /** MAC commands fill the frames: they go out with any frame, also one that holds nothing else, and the next one has their room. */
  async #makeRoom(bytesMax: number): Promise<void> {
    const delayMs = this.#roomBackOff.next();
    if (this.#view.bytesMax !== undefined) await this.#send(emptyFrame);
    this.#say("no-room", `frames hold ${bytesMax} bytes now, and what is to be sent needs more`, delayMs);
    return this.#rest.rest(delayMs, false);
  }

  async #send(frame: OutgoingFrame): Promise<void> {
    const { region, modem } = this.#o;
    const { dataRate } = this.#view;
    const once = costBefore(region, dataRate, frame.bytesMax);
    const cost = reserveFor(modem.family, once, region, this.#transmissions);
    const wait = this.#budget.waitFor(cost, this.#nowMs, frame.share);
    if (wait) return this.#awaitBudget(wait, frame.share < 1);
    const bytes = frame.take(this.#nowMs);
    this.#budget.reserve(cost);
    this.#say("sending");
    // The point of no return: once this is written, the airtime counts, whatever becomes of this process.
    if (!(await this.#save())) {
      this.#budget.settle(undefined, this.#nowMs);
      frame.done("not-sent", this.#nowMs);
      return this.#rest.rest(storeRetryMs, false);
    }
    const outcome = await modem.send(frame.port, bytes);
    if (outcome.kind === "sent" || outcome.kind === "fault") this.#transmissions = outcome.transmissions ?? 1;
    if (outcome.kind === "sent") await this.#sent(frame, bytes.length, dataRate);
    const delayMs = outcome.kind === "sent" ? 0 : this.#notSent(frame, bytes.length, outcome, once);
    await this.#save();
    if (delayMs > 0) await this.#rest.rest(delayMs, false);
  }

  async #sent(frame: OutgoingFrame, bytes: number, before: number | undefined): Promise<void> {
    const nowMs = this.#nowMs;
    frame.done("sent", nowMs);
    this.#join.frameSent(nowMs);
    this.#counts.framesSent++;
    this.#counts.bytesSent += bytes;
    this.#limit.sent();
    this.#modemBackOff.reset();
    this.#refusedBackOff.reset();
    if (frame !== emptyFrame) this.#roomBackOff.reset();
    let after = before;
    try {
      this.#view = await this.#o.modem.state();
      after = this.#view.dataRate;
    } catch (error) {
      if (!(error instanceof DriverError)) throw error;
      this.#lose(error.message);
    }
    const cost = costAfter(this.#o.region, before, after, bytes, this.#transmissions);
    this.#budget.settle(cost, this.#nowMs);
    const { airtimeMs } = cost;
    this.#o.emit({
      ...{ event: "frame", port: frame.port, bytes, airtimeMs },
      ...(after !== undefined && { dataRate: after }),
    });
  }

  /** How long to leave the modem alone then. */
  #notSent(frame: OutgoingFrame, bytes: number, outcome: Exclude<SendOutcome, { kind: "sent" }>, cost: FrameCost) {
    const { region, modem } = this.#o;
    const nowMs = this.#nowMs;
    switch (outcome.kind) {
      case "busy":
      case "duty-cycle": {
        this.#budget.settle(undefined, nowMs);
        frame.done("not-sent", nowMs);
        const delayMs = this.#refusedFor(outcome.retryInMs);
        this.#say("modem-refuses", refusalSentences[outcome.kind], delayMs);
        return delayMs;
      }
      case "too-long": {
        const { dataRate } = this.#view;
        this.#budget.settle(outcome.emptyFrameSent ? costBefore(region, dataRate, 0) : undefined, nowMs);
        frame.done("not-sent", nowMs);
        return this.#tooLong(bytes, outcome);
      }
      case "not-joined":
        // That family begins a join by itself.
        this.#budget.settle(modem.family === "at-slave" ? joinCost(region) : undefined, nowMs);
        frame.done("not-sent", nowMs);
        this.#view = { joined: false };
        this.#joinDetail = "the modem has forgotten that it had joined";
        return 0;
      case "fault":
        this.#budget.settle(reserveFor(modem.family, cost, region, this.#transmissions), nowMs);
        frame.done("unknown", nowMs);
        this.#lose(outcome.detail);
        return 0;
    }
  }

  #tooLong(bytes: number, outcome: Extract<SendOutcome, { kind: "too-long" }>): number {
    if (this.#limit.refused(bytes, outcome, this.#view.dataRate) <= 3) return 0;
    const delayMs = this.#roomBackOff.next();
    this.#say("no-room", `the modem refuses a frame of ${bytes} bytes as too long`, delayMs);
    return delayMs;
  }

  #received({ port, bytes }: LoraDownlink): void {
    const nowMs = this.#nowMs;
    this.#counts.downlinks++;
    this.#join.heard(nowMs);
    this.#outbox.heard();
    if (port === receiptPort) {
      this.#counts.receipts++;
      this.#outbox.hinted(bytes);
      this.#o.onReceipt(bytes);
    } else if (!fragmentPorts.some((known) => known === port) || !this.#outbox.answered(port, bytes, nowMs)) {
      this.#counts.downlinksIgnored++;
    }
    this.#rest.wake();
  }
}
