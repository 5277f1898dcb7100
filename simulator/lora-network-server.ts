/**
 * A small LoRaWAN network server: joins, sessions, MIC and counters, copies of several gateways taken once, ADR and other commands, one
 * downlink per uplink in its first or second window. What it says to applications is left to a dialect.
 */
import { payloadBytesMax, type RegionName, radioPlan } from "../drivers/lora/region.ts";
import type { RadioSettings } from "./lora-airtime-meter.ts";
import { downlinkRateOf } from "./lora-end-device.ts";
import type { GatewayCopy, QueueItem, ServerDevice, ServerDialect, ServerMessage } from "./lora-server-dialect.ts";
import { GatewayPort, type ReceivedFrame } from "./lora-server-gateways.ts";
import { ServerSession } from "./lora-server-session.ts";
import { dataFrameHead } from "./lorawan-frame.ts";
import {
  decodeJoinRequest,
  encodeChannelList,
  encodeJoinAccept,
  isJoinRequestAuthentic,
  type JoinRequest,
  sessionKeysOf,
} from "./lorawan-join.ts";
import type { SimulatorTiming } from "./simulator-timing.ts";

export interface NetworkServerOptions {
  readonly timing: SimulatorTiming;
  readonly random: () => number;
  readonly region: RegionName;
  readonly dialect: ServerDialect;
  readonly publish: (message: ServerMessage) => void;
  readonly wallMs: (timingMs: number) => number;
  /** Default: the dialect's (ChirpStack 1, The Things Stack 5). */
  readonly rx1DelayS?: number;
  /** How long it waits for copies of other gateways; 200 ms with both makers. */
  readonly deduplicationMs?: number;
  /** From the uplink's event until the queue is looked at: what an application has to answer in the same window. Default 100. */
  readonly answerWindowMs?: number;
  /** The data rate of the second window; default the region's. The Things Stack takes 3 in EU868. */
  readonly rx2DataRate?: number;
}

/** What goes wrong on purpose; may be changed at any time. */
export interface ServerFaults {
  /** Joins are not answered, as with a wrong AppKey. */
  ignoresJoins: boolean;
  /** Downlinks leave this much later than they should: some for the second window, some for none. */
  downlinkLateMs: number;
  /** Each event is published this many times. */
  publishes: number;
}

interface KnownDevice extends ServerDevice {
  readonly usedNonces: Set<number>;
  /** The one in use, and one that was offered and has not been used. */
  session: ServerSession | undefined;
  offered: ServerSession | undefined;
  queue: QueueItem[];
}

const joinDelayS = 5;
const queueMax = 64;
const joinNonceMax = 2 ** 24;

export class NetworkServer {
  readonly faults: ServerFaults = { ignoresJoins: false, downlinkLateMs: 0, publishes: 1 };
  readonly #options: NetworkServerOptions;
  readonly #timing: SimulatorTiming;
  readonly #gateways: GatewayPort;
  readonly #devices = new Map<string, KnownDevice>();
  #joinNonce: number;
  #ids = 0;
  /** Frames that were of no session, or did not open: of other networks, replayed, or spoilt. */
  dropped = 0;

  constructor(options: NetworkServerOptions) {
    this.#options = options;
    this.#timing = options.timing;
    this.#joinNonce = Math.floor(options.random() * joinNonceMax);
    this.#gateways = new GatewayPort({
      timing: options.timing,
      region: options.region,
      deduplicationMs: options.deduplicationMs ?? 200,
      onFrame: (frame) => {
        if (!this.#take(frame)) this.dropped++;
      },
    });
  }

  addDevice(device: ServerDevice): void {
    this.#devices.set(device.devEui, {
      ...device,
      usedNonces: new Set(),
      session: undefined,
      offered: undefined,
      queue: [],
    });
  }

  /** A gateway's datagram; `reply` leads back to where it came from. */
  receive(datagram: Uint8Array, reply: (datagram: Uint8Array) => void): void {
    this.#gateways.receive(datagram, reply);
  }

  /** What an application publishes. Returns whether it was a command that the server takes. */
  command(topic: string, json: string): boolean {
    const command = this.#options.dialect.command(topic, json, () => this.#newId());
    const device = command && this.#devices.get(command.devEui);
    if (command === undefined || device === undefined) return false;
    if (command.replaces) device.queue = [];
    device.queue = [...device.queue, ...command.items].slice(-queueMax);
    for (const item of command.items) {
      const state = { kind: "queued", frameCounter: 0, gatewayEui: "" } as const;
      this.#tell(this.#options.dialect.downlink(device, item, state, this.#wallMs()));
    }
    return true;
  }

  queueLength(devEui: string): number {
    return this.#devices.get(devEui)?.queue.length ?? 0;
  }

  /** Asks the device with the next downlink to take this data rate, and to send each frame so many times. */
  setDataRate(devEui: string, dataRate: number, transmissions = 1): void {
    this.#devices.get(devEui)?.session?.requestDataRate(dataRate, transmissions);
  }

  /** Asks for the device's status so many times in one downlink: each answer takes three bytes of its next frame. */
  requestStatus(devEui: string, times: number): void {
    this.#devices.get(devEui)?.session?.requestStatus(times);
  }

  /** False where it is not for this server, or not as it should be. */
  #take(frame: ReceivedFrame): boolean {
    const join = decodeJoinRequest(frame.phyPayload);
    if (join !== undefined) return this.#join(join, frame);
    const head = dataFrameHead(frame.phyPayload);
    if (head === undefined || head.direction !== "up") return false;
    for (const device of this.#devices.values()) {
      for (const session of [device.offered, device.session]) {
        if (session === undefined || session.devAddr !== head.devAddr) continue;
        if (session === device.offered && session.open(frame.phyPayload) !== undefined) {
          device.session = session;
          device.offered = undefined;
          this.#tell(this.#options.dialect.joined(device, session.devAddr, this.#wallMs()));
        }
        if (session === device.session) return this.#uplink(device, session, frame);
      }
    }
    return false;
  }

  #join(request: JoinRequest, frame: ReceivedFrame): boolean {
    const { region, dialect, random } = this.#options;
    const device = this.#devices.get(request.devEui);
    if (device === undefined || this.faults.ignoresJoins) return false;
    if (device.joinEui !== request.joinEui || !isJoinRequestAuthentic(frame.phyPayload, device.appKey)) return false;
    if (device.usedNonces.has(request.devNonce)) return false; // 1.0.4: a DevNonce is used once
    device.usedNonces.add(request.devNonce);
    this.#joinNonce = (this.#joinNonce + 1) % joinNonceMax;
    const plan = radioPlan(region);
    const accept = {
      joinNonce: this.#joinNonce,
      netId: 0x000013,
      devAddr: (0x26 * 2 ** 24 + Math.floor(random() * 2 ** 24)) >>> 0,
      dlSettings: this.#rx2DataRate,
      rxDelay: this.#options.rx1DelayS ?? dialect.rx1DelayS,
      ...(region === "EU868" && {
        cfList: encodeChannelList(plan.channels.slice(3).map(({ frequencyHz }) => frequencyHz)),
      }),
    };
    device.offered = new ServerSession(accept.devAddr, sessionKeysOf(device.appKey, accept, request.devNonce));
    this.#sendDown(frame, encodeJoinAccept(accept, device.appKey), joinDelayS, plan.window2.dataRate, () => {});
    return true;
  }

  #uplink(device: KnownDevice, session: ServerSession, frame: ReceivedFrame): boolean {
    const { dialect } = this.#options;
    const opened = session.open(frame.phyPayload);
    if (opened === undefined) return false;
    const isRepeated = session.isRepeated(opened);
    const acknowledged = session.take(opened);
    if (acknowledged !== undefined) {
      const { item, frameCounter, isAcknowledged } = acknowledged;
      const kind = isAcknowledged ? "acknowledged" : "not-acknowledged";
      this.#tell(dialect.downlink(device, item, { kind, frameCounter }, this.#wallMs()));
    }
    if (!isRepeated) {
      this.#tell(
        dialect.up({
          device,
          devAddr: session.devAddr,
          adr: opened.adr,
          dataRate: frame.dataRate,
          spreadingFactor: frame.spreadingFactor,
          bandwidthKhz: frame.bandwidthKhz,
          frequencyHz: frame.frequencyHz,
          frameCounter: opened.frameCounter,
          ...(opened.port !== undefined && { port: opened.port }),
          confirmed: opened.confirmed,
          bytes: opened.port === 0 ? new Uint8Array(0) : opened.payload,
          wallMs: this.#wallMs(),
          copies: frame.copies,
          id: this.#newId(),
        }),
      );
    }
    const mustAnswer = opened.confirmed || opened.adrAckRequest;
    this.#timing.after(this.#options.answerWindowMs ?? 100, () => this.#answer(device, session, frame, mustAnswer));
    return true;
  }

  /** The one downlink that an uplink makes possible. */
  #answer(device: KnownDevice, session: ServerSession, frame: ReceivedFrame, mustAnswer: boolean): void {
    const { region, dialect } = this.#options;
    const nowMs = this.#wallMs();
    device.queue = device.queue.filter(({ expiresAtMs }) => expiresAtMs === undefined || expiresAtMs > nowMs);
    const rate = radioPlan(region).window1DataRate(frame.dataRate);
    const bytesMax = downlinkBytesMax(region, rate);
    let item = device.queue[0];
    while (item !== undefined && item.bytes.length > bytesMax) {
      device.queue.shift();
      const detail = `${item.bytes.length} bytes, at most ${bytesMax} at DR${rate}`;
      this.#tell(dialect.downlink(device, item, { kind: "failed", code: "DOWNLINK_PAYLOAD_SIZE", detail }, nowMs));
      item = device.queue[0];
    }
    if (item === undefined && !mustAnswer && !session.hasCommands) return;
    const { phyPayload, frameCounter } = session.downlink(item, bytesMax, device.queue.length > 1);
    const sent = item;
    this.#sendDown(
      frame,
      phyPayload,
      this.#options.rx1DelayS ?? dialect.rx1DelayS,
      this.#rx2DataRate,
      (gatewayEui) => {
        if (sent === undefined) return;
        device.queue = device.queue.filter(({ id }) => id !== sent.id);
        this.#tell(dialect.downlink(device, sent, { kind: "sent", frameCounter, gatewayEui }, this.#wallMs()));
      },
      sent && ((error) => this.#failed(device, sent, error)),
    );
  }

  #failed(device: KnownDevice, item: QueueItem, error: string): void {
    // It stays in the queue: the next uplink opens another window.
    const state = { kind: "failed", code: "DOWNLINK_GATEWAY", detail: error } as const;
    this.#tell(this.#options.dialect.downlink(device, item, state, this.#wallMs()));
  }

  /** Through the gateway that heard best, in the first window; where that one says it is too late, in the second. */
  #sendDown(
    frame: ReceivedFrame,
    phyPayload: Uint8Array,
    delayS: number,
    rx2DataRate: number,
    sent: (gatewayEui: string) => void,
    failed: (error: string) => void = () => {},
  ): void {
    const { region } = this.#options;
    const plan = radioPlan(region);
    const copy = best(frame.copies);
    const channel = plan.channels.findIndex(({ frequencyHz }) => frequencyHz === frame.frequencyHz);
    const first: RadioSettings = {
      frequencyHz: plan.window1FrequencyHz(channel),
      ...downlinkRateOf(region, plan.window1DataRate(frame.dataRate)),
    };
    const second: RadioSettings = { frequencyHz: plan.window2.frequencyHz, ...downlinkRateOf(region, rx2DataRate) };
    const send = (settings: RadioSettings, afterS: number, refused: (error: string) => void): void =>
      this.#gateways.transmit(copy, settings, phyPayload, afterS, (error) =>
        error === undefined ? sent(copy.gatewayEui) : refused(error),
      );
    this.#timing.after(this.faults.downlinkLateMs, () => send(first, delayS, () => send(second, delayS + 1, failed)));
  }

  get #rx2DataRate(): number {
    return this.#options.rx2DataRate ?? radioPlan(this.#options.region).window2.dataRate;
  }

  #tell(message: ServerMessage | undefined): void {
    if (message === undefined) return;
    for (let i = 0; i < this.faults.publishes; i++) this.#options.publish(message);
  }

  #wallMs(): number {
    return this.#options.wallMs(this.#timing.nowMs());
  }

  /** A UUID of version 4 that the seed repeats. */
  #newId(): string {
    const hex = (digits: number): string =>
      Math.floor(this.#options.random() * 16 ** digits)
        .toString(16)
        .padStart(digits, "0");
    this.#ids++;
    return `${hex(8)}-${hex(4)}-4${hex(3)}-8${hex(3)}-${(this.#ids % 16 ** 12).toString(16).padStart(12, "0")}`;
  }
}

function best(copies: readonly GatewayCopy[]): GatewayCopy {
  return copies.reduce((a, b) => (b.snrDb > a.snrDb ? b : a));
}

/** Largest FRMPayload of a downlink: the table of uplinks where both directions share data rates, DR8 to DR13 elsewhere. */
function downlinkBytesMax(region: RegionName, dataRate: number): number {
  const wide = [53, 129, 242, 242, 242, 242];
  return wide[dataRate - 8] ?? payloadBytesMax(region, dataRate, { dwell: false, repeaterSafe: false }) ?? 0;
}
