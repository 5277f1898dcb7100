/** The LoRaWAN 1.0.x MAC of a class A device, as it runs inside a modem: joins, sends, opens its two windows, does what the server bids. */
import {
  type DataRate,
  dataRates,
  payloadBytesMax,
  type RegionName,
  radioPlan,
  subBands,
} from "../drivers/lora/region.ts";
import { onAirMs, type RadioSettings } from "./lora-airtime-meter.ts";
import { DutyCycleGuard, type DutyCycleMode } from "./lora-duty-cycle.ts";
import type { HeardFrame, LoraRadio } from "./lora-radio.ts";
import { encodeDataFrame, openDataFrame } from "./lorawan-frame.ts";
import {
  decodeChannelList,
  decodeJoinAccept,
  encodeJoinRequest,
  type SessionKeys,
  sessionKeysOf,
} from "./lorawan-join.ts";
import { macCommandIds, readMacCommands } from "./lorawan-mac-command.ts";
import type { SimulatorTiming } from "./simulator-timing.ts";

export interface EndDeviceOptions {
  readonly timing: SimulatorTiming;
  readonly radio: LoraRadio;
  readonly random: () => number;
  readonly region: RegionName;
  readonly dutyCycle: DutyCycleMode;
  /** At most 222 bytes, as an RN2483. */
  readonly repeaterSafe: boolean;
  readonly dataRate: number;
  /** Uplinks without any downlink until it asks for one, and from then until it lowers its data rate. Default 64 and 32. */
  readonly adrAckLimit?: number;
  readonly adrAckDelay?: number;
}

export type TransmitStart =
  | { readonly kind: "started" }
  | { readonly kind: "busy" }
  | { readonly kind: "no-keys" }
  | { readonly kind: "not-joined" }
  | { readonly kind: "too-long"; readonly bytesMax: number }
  | { readonly kind: "duty-cycle"; readonly retryInMs: number };

export interface DeviceDownlink {
  readonly window: 1 | 2;
  /** Absent: a frame without payload. */
  readonly port?: number;
  readonly bytes: Uint8Array;
  readonly rssiDbm: number;
  readonly snrDb: number;
  readonly dataRate: number;
  readonly pending: boolean;
}

export interface TransmitEnd {
  readonly kind: "join" | "data";
  /** A join: whether an accept came. Confirmed data: whether it was acknowledged. */
  readonly isAnswered: boolean;
  readonly downlink?: DeviceDownlink;
  /** Of LinkCheckAns. */
  readonly linkCheck?: { readonly marginDb: number; readonly gateways: number };
}

interface Session {
  readonly devAddr: number;
  readonly keys: SessionKeys;
  frameCounterUp: number;
  frameCounterDown: number;
  rxDelayS: number;
  window2DataRate: number;
  channelsHz: readonly number[];
  transmissions: number;
}

const joinDelayS = 5;
const windowGapS = 1;
const fOptsBytesMax = 15;

export class EndDevice {
  readonly region: RegionName;
  readonly #options: EndDeviceOptions;
  readonly #timing: SimulatorTiming;
  readonly #guard: DutyCycleGuard;
  #session: Session | undefined;
  #isBusy = false;
  /** Changes with each reset: what is on its way then comes back to nobody. */
  #life = 0;
  #answers: number[] = [];
  #owesAck = false;
  #adrAckCounter = 0;
  #devNonce = 0;
  /** Non-volatile, as set by commands. */
  devEui = "";
  joinEui = "";
  appKey: Uint8Array | undefined;
  adr = true;
  #dataRate: number;
  /** Asked of the server with the next uplink. */
  wantsLinkCheck = false;
  /** Told when windows are closed; at a reset nobody is told. */
  onEnd: (end: TransmitEnd) => void = () => {};

  constructor(options: EndDeviceOptions) {
    this.#options = options;
    this.#timing = options.timing;
    this.region = options.region;
    if (!usableDataRates(options.region).includes(options.dataRate))
      throw new RangeError(`data rate ${options.dataRate} of ${options.region}: no channel takes it`);
    this.#dataRate = options.dataRate;
    this.#guard = new DutyCycleGuard(options.dutyCycle, subBands(options.region));
  }

  get dataRate(): number {
    return this.#dataRate;
  }

  /** False where no channel takes it; it stays as it is then. */
  setDataRate(dataRate: number): boolean {
    const isUsable = usableDataRates(this.region).includes(dataRate);
    if (isUsable) this.#dataRate = dataRate;
    return isUsable;
  }

  get isJoined(): boolean {
    return this.#session !== undefined;
  }

  get isBusy(): boolean {
    return this.#isBusy;
  }

  get devAddr(): number | undefined {
    return this.#session?.devAddr;
  }

  get frameCounterUp(): number {
    return this.#session?.frameCounterUp ?? 0;
  }

  get dutyCycle(): DutyCycleMode {
    return this.#guard.mode;
  }

  set dutyCycle(mode: DutyCycleMode) {
    this.#guard.mode = mode;
  }

  /** What fits beside the answers that wait for the next frame. */
  get bytesMax(): number {
    const { region, repeaterSafe } = this.#options;
    const bytes = payloadBytesMax(region, this.dataRate, { repeaterSafe }) ?? 0;
    return Math.max(0, bytes - this.#fOpts().length);
  }

  /** A power cycle: the session is gone, keys and the counter of joins are kept. */
  reset(): void {
    this.#life++;
    this.#session = undefined;
    this.#isBusy = false;
    this.#answers = [];
    this.#owesAck = false;
    this.#adrAckCounter = 0;
    this.#dataRate = this.#options.dataRate;
    this.#guard.forget();
  }

  join(): TransmitStart {
    if (this.#isBusy) return { kind: "busy" };
    if (this.appKey === undefined || this.devEui === "" || this.joinEui === "") return { kind: "no-keys" };
    const devNonce = this.#devNonce++ & 0xffff;
    const request = encodeJoinRequest({ joinEui: this.joinEui, devEui: this.devEui, devNonce }, this.appKey);
    const appKey = this.appKey;
    const take = (frame: HeardFrame): boolean => {
      const accept = decodeJoinAccept(frame.phyPayload, appKey);
      if (accept === undefined) return false;
      this.#session = {
        devAddr: accept.devAddr,
        keys: sessionKeysOf(appKey, accept, devNonce),
        frameCounterUp: 0,
        frameCounterDown: 0,
        rxDelayS: Math.max(1, accept.rxDelay & 0x0f),
        window2DataRate: accept.dlSettings & 0x0f,
        channelsHz: [...this.#joinChannels(), ...(accept.cfList ? decodeChannelList(accept.cfList) : [])],
        transmissions: 1,
      };
      this.#answers = [];
      this.#owesAck = false;
      this.#adrAckCounter = 0;
      this.#end({ kind: "join", isAnswered: true });
      return true;
    };
    const window2DataRate = radioPlan(this.region).window2.dataRate;
    const windows = { delayS: joinDelayS, window2DataRate };
    const started = this.#transmit(request, this.#joinChannels(), windows, take, () =>
      this.#end({ kind: "join", isAnswered: false }),
    );
    if (started.kind === "started") this.#session = undefined;
    else this.#devNonce--;
    return started;
  }

  send(port: number, payload: Uint8Array, confirmed = false): TransmitStart {
    if (this.#isBusy) return { kind: "busy" };
    if (this.#session === undefined) return { kind: "not-joined" };
    const { bytesMax } = this;
    if (payload.length > bytesMax) return { kind: "too-long", bytesMax };
    return this.#sendFrame(port, payload, confirmed);
  }

  /** A frame without payload, which carries the answers to MAC commands. */
  sendEmpty(): TransmitStart {
    if (this.#isBusy) return { kind: "busy" };
    if (this.#session === undefined) return { kind: "not-joined" };
    return this.#sendFrame(undefined, new Uint8Array(0), false);
  }

  #sendFrame(port: number | undefined, payload: Uint8Array, confirmed: boolean): TransmitStart {
    const session = this.#session as Session;
    const { adrAckLimit = 64, adrAckDelay = 32 } = this.#options;
    const fOpts = Uint8Array.from(this.#fOpts());
    const phyPayload = encodeDataFrame(
      {
        direction: "up",
        confirmed,
        devAddr: session.devAddr,
        adr: this.adr,
        adrAckRequest: this.adr && this.#adrAckCounter >= adrAckLimit,
        ack: this.#owesAck,
        pending: false,
        frameCounter: session.frameCounterUp,
        fOpts,
        ...(port !== undefined && { port }),
        payload,
      },
      session.keys,
    );
    const windows = { delayS: session.rxDelayS, window2DataRate: session.window2DataRate };
    const take = (frame: HeardFrame, window: 1 | 2): boolean => this.#heard(frame, window, confirmed);
    const attempt = (left: number): TransmitStart =>
      this.#transmit(phyPayload, session.channelsHz, windows, take, () => {
        if (left > 1) this.#repeat(() => attempt(left - 1));
        else this.#end({ kind: "data", isAnswered: false });
      });
    const started = attempt(session.transmissions);
    if (started.kind !== "started") return started;
    session.frameCounterUp++;
    this.#answers = [];
    this.#owesAck = false;
    this.wantsLinkCheck = false;
    this.#adrAckCounter++;
    if (this.adr && this.#adrAckCounter >= adrAckLimit + adrAckDelay) {
      // Clause 4.3.1.1: nobody answers, so perhaps nobody hears.
      this.#adrAckCounter = adrAckLimit;
      this.setDataRate(this.#dataRate - 1);
    }
    return started;
  }

  /** The same frame once more (NbTrans), as soon as the duty cycle lets it. */
  #repeat(attempt: () => TransmitStart): void {
    const life = this.#life;
    this.#timing.after(1_000, () => {
      if (life !== this.#life) return;
      this.#isBusy = false;
      const started = attempt();
      if (started.kind !== "started") {
        this.#isBusy = true;
        this.#repeat(attempt);
      }
    });
  }

  /**
   * Sends on a channel that is free, and opens both windows.
   * @param heard returns whether the frame was for this device
   */
  #transmit(
    phyPayload: Uint8Array,
    channelsHz: readonly number[],
    { delayS, window2DataRate }: { readonly delayS: number; readonly window2DataRate: number },
    heard: (frame: HeardFrame, window: 1 | 2) => boolean,
    nothing: () => void,
  ): TransmitStart {
    const { radio, random, region } = this.#options;
    const plan = radioPlan(region);
    const { dataRate } = this;
    const rate = rateOf(region, dataRate);
    const choice = channelsHz.filter((frequencyHz) =>
      plan.channels.some(
        (known) => known.frequencyHz === frequencyHz && dataRate >= known.dataRateMin && dataRate <= known.dataRateMax,
      ),
    );
    const nowMs = this.#timing.nowMs();
    const free = choice.filter((frequencyHz) => this.#guard.freeAtMs(frequencyHz) <= nowMs);
    if (free.length === 0) {
      const retryInMs = Math.min(...choice.map((frequencyHz) => this.#guard.freeAtMs(frequencyHz))) - nowMs;
      return { kind: "duty-cycle", retryInMs: Math.ceil(retryInMs) };
    }
    const frequencyHz = free[Math.floor(random() * free.length)] as number;
    const settings: RadioSettings = { frequencyHz, ...rate };
    this.#isBusy = true;
    const life = this.#life;
    this.#guard.took(frequencyHz, nowMs, onAirMs(settings, phyPayload.length, true));
    radio.transmitUp(this.devEui, settings, phyPayload, (_startMs, endMs) => {
      const isMine = (frame: HeardFrame | undefined, window: 1 | 2): boolean =>
        life !== this.#life || (frame !== undefined && heard(frame, window));
      const first: RadioSettings = {
        frequencyHz: plan.window1FrequencyHz(plan.channels.findIndex((known) => known.frequencyHz === frequencyHz)),
        ...downlinkRateOf(region, plan.window1DataRate(dataRate)),
      };
      const second: RadioSettings = {
        frequencyHz: plan.window2.frequencyHz,
        ...downlinkRateOf(region, window2DataRate),
      };
      radio.listenDown(first, endMs + delayS * 1_000, (frame) => {
        if (isMine(frame, 1)) return;
        radio.listenDown(second, endMs + (delayS + windowGapS) * 1_000, (later) => {
          if (!isMine(later, 2)) nothing();
        });
      });
    });
    return { kind: "started" };
  }

  #heard(heard: HeardFrame, window: 1 | 2, confirmed: boolean): boolean {
    const session = this.#session;
    const frame = session && openDataFrame(heard.phyPayload, session.keys, session.frameCounterDown);
    if (session === undefined || frame === undefined || frame.direction !== "down") return false;
    if (frame.devAddr !== session.devAddr) return false;
    session.frameCounterDown = frame.frameCounter + 1;
    this.#adrAckCounter = 0;
    this.#owesAck = frame.confirmed;
    const heardDataRate = this.dataRate;
    const linkCheck = this.#obey(frame.port === 0 ? frame.payload : frame.fOpts, session, heard.snrDb);
    const port = frame.port === 0 ? undefined : frame.port;
    this.#end({
      kind: "data",
      isAnswered: !confirmed || frame.ack,
      downlink: {
        window,
        ...(port !== undefined && { port }),
        bytes: port === undefined ? new Uint8Array(0) : frame.payload,
        rssiDbm: heard.rssiDbm,
        snrDb: heard.snrDb,
        dataRate: heardDataRate,
        pending: frame.pending,
      },
      ...(linkCheck && { linkCheck }),
    });
    return true;
  }

  #obey(bytes: Uint8Array, session: Session, snrDb: number): TransmitEnd["linkCheck"] {
    let linkCheck: TransmitEnd["linkCheck"];
    for (const { id, body } of readMacCommands(bytes, "down")) {
      if (id === macCommandIds.linkCheck) linkCheck = { marginDb: body[0]!, gateways: body[1]! };
      if (id === macCommandIds.linkAdr) {
        const dataRate = body[0]! >> 4;
        const isTaken = this.setDataRate(dataRate);
        if (isTaken) session.transmissions = Math.max(1, body[3]! & 0x0f);
        this.#answers.push(id, isTaken ? 0b111 : 0b101);
      }
      if (id === macCommandIds.rxTimingSetup) {
        session.rxDelayS = Math.max(1, body[0]! & 0x0f);
        this.#answers.push(id);
      }
      if (id === macCommandIds.rxParamSetup) {
        session.window2DataRate = body[0]! & 0x0f;
        this.#answers.push(id, 0b111);
      }
      if (id === macCommandIds.devStatus) this.#answers.push(id, 0, Math.round(snrDb) & 0x3f);
      if (id === macCommandIds.dutyCycle || id === macCommandIds.txParamSetup) this.#answers.push(id);
      if (id === macCommandIds.newChannel || id === macCommandIds.downlinkChannel) this.#answers.push(id, 0b11);
    }
    return linkCheck;
  }

  /** Whole answers, as many as 15 bytes take. */
  #fOpts(): number[] {
    const wanted = [...(this.wantsLinkCheck ? [macCommandIds.linkCheck] : []), ...this.#answers];
    const whole = readMacCommands(Uint8Array.from(wanted), "up");
    const out: number[] = [];
    for (const { id, body } of whole) if (out.length + 1 + body.length <= fOptsBytesMax) out.push(id, ...body);
    return out;
  }

  #joinChannels(): number[] {
    const { channels } = radioPlan(this.region);
    // EU868 and AS923: those of the region; a device learns the others from the CFList. US915 and AU915: all of them.
    const shared = this.region === "EU868" ? 3 : this.region === "AS923" ? 2 : channels.length;
    return channels.slice(0, shared).map(({ frequencyHz }) => frequencyHz);
  }

  #end(end: TransmitEnd): void {
    this.#isBusy = false;
    this.onEnd(end);
  }
}

/** Those that some channel of the region takes, and at which a frame may hold anything. */
export function usableDataRates(region: RegionName): readonly number[] {
  const { channels } = radioPlan(region);
  return dataRates(region)
    .map(({ dataRate }) => dataRate)
    .filter((rate) => payloadBytesMax(region, rate) !== undefined)
    .filter((rate) => channels.some(({ dataRateMin, dataRateMax }) => rate >= dataRateMin && rate <= dataRateMax));
}

/** @throws RangeError where the region has no such data rate */
export function rateOf(region: RegionName, dataRate: number): Omit<RadioSettings, "frequencyHz"> {
  return settingsOf(dataRates(region), dataRate, region);
}

export function downlinkRateOf(region: RegionName, dataRate: number): Omit<RadioSettings, "frequencyHz"> {
  return settingsOf(radioPlan(region).downlinkDataRates, dataRate, region);
}

function settingsOf(
  rates: readonly DataRate[],
  dataRate: number,
  region: RegionName,
): Omit<RadioSettings, "frequencyHz"> {
  const rate = rates.find((known) => known.dataRate === dataRate);
  if (rate === undefined) throw new RangeError(`${region} has no LoRa data rate ${dataRate}`);
  const { spreadingFactor, bandwidthKhz } = rate;
  return { spreadingFactor, bandwidthKhz };
}
