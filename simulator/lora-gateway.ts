/** A gateway: what it hears goes to the network server by Semtech's UDP protocol, version 2; what comes back is sent when it says. */
import type { RadioSettings } from "./lora-airtime-meter.ts";
import type { HeardFrame, LoraRadio } from "./lora-radio.ts";
import { decodeDatagram, encodeDatagram } from "./semtech-udp.ts";
import type { SimulatorTiming } from "./simulator-timing.ts";

export interface LoraGatewayOptions {
  readonly timing: SimulatorTiming;
  readonly radio: LoraRadio;
  /** 16 hexadecimal digits. */
  readonly eui: string;
  /** Hands a datagram to the server: over UDP, or in this process. */
  readonly send: (datagram: Uint8Array) => void;
  /** Wall time of a moment of `timing`, for the field `time`. */
  readonly wallMs: (timingMs: number) => number;
}

/** How often it opens the way for downlinks through a router's address translation. */
const pullEveryMs = 10_000;
/** A concentrator needs its frame this long before it is to be sent. */
const programmingMs = 5;
const counterUs = 2 ** 32;

export class LoraGateway {
  readonly eui: string;
  readonly #options: LoraGatewayOptions;
  readonly #forget: () => void;
  #token = 0;
  #stopPulling: () => void = () => {};
  /** An outage of its backhaul: what it hears then is lost, as with every real packet forwarder. */
  isOnline = true;

  constructor(options: LoraGatewayOptions) {
    this.#options = options;
    this.eui = options.eui;
    this.#forget = options.radio.addGateway((frame) => this.#push(frame));
    this.#pull();
  }

  /** A datagram of the server. What is none is ignored, as a packet forwarder does. */
  receive(bytes: Uint8Array): void {
    const datagram = this.isOnline ? decodeDatagram(bytes) : undefined;
    if (datagram?.type !== "PULL_RESP") return;
    const error = this.#transmit(datagram.json.txpk);
    this.#send({
      type: "TX_ACK",
      token: datagram.token,
      eui: this.eui,
      json: { txpk_ack: { error } },
    });
  }

  close(): void {
    this.#stopPulling();
    this.#forget();
  }

  #push(frame: HeardFrame): void {
    const { phyPayload, endMs, frequencyHz, spreadingFactor, bandwidthKhz, rssiDbm, snrDb } = frame;
    this.#send({
      type: "PUSH_DATA",
      token: this.#nextToken(),
      eui: this.eui,
      json: {
        rxpk: [
          {
            time: new Date(this.#options.wallMs(endMs)).toISOString(),
            tmst: Math.round(endMs * 1_000) % counterUs,
            freq: frequencyHz / 1e6,
            chan: 0,
            rfch: 0,
            stat: 1,
            modu: "LORA",
            datr: `SF${spreadingFactor}BW${bandwidthKhz}`,
            codr: "4/5",
            rssi: rssiDbm,
            lsnr: snrDb,
            size: phyPayload.length,
            data: Buffer.from(phyPayload).toString("base64"),
          },
        ],
      },
    });
  }

  /** What became of it, in the words of TX_ACK. */
  #transmit(txpk: unknown): string {
    const { tmst, freq, datr, data, imme } = (txpk ?? {}) as Record<string, unknown>;
    const rate = /^SF(\d{1,2})BW(\d{3})$/.exec(String(datr));
    if (rate === null || typeof freq !== "number" || typeof data !== "string") return "TX_FREQ";
    const settings: RadioSettings = {
      frequencyHz: Math.round(freq * 1e6),
      spreadingFactor: Number(rate[1]),
      bandwidthKhz: Number(rate[2]),
    };
    const nowMs = this.#options.timing.nowMs();
    let startMs = nowMs + programmingMs;
    if (imme !== true) {
      if (typeof tmst !== "number") return "TOO_LATE";
      const nowUs = Math.round(nowMs * 1_000);
      // The counter of 32 bits wraps about every 71 minutes: the nearest moment that it can mean.
      let aheadUs = (tmst - (nowUs % counterUs) + counterUs) % counterUs;
      if (aheadUs > counterUs / 2) aheadUs -= counterUs;
      if (aheadUs > 30_000_000) return "TOO_EARLY";
      startMs = (nowUs + aheadUs) / 1_000;
      if (startMs < nowMs + programmingMs) return "TOO_LATE";
    }
    this.#options.radio.transmitDown(settings, Uint8Array.from(Buffer.from(data, "base64")), startMs);
    return "NONE";
  }

  #pull(): void {
    this.#send({ type: "PULL_DATA", token: this.#nextToken(), eui: this.eui });
    this.#stopPulling = this.#options.timing.after(pullEveryMs, () => this.#pull());
  }

  #send(datagram: Parameters<typeof encodeDatagram>[0]): void {
    if (this.isOnline) this.#options.send(encodeDatagram(datagram));
  }

  #nextToken(): number {
    this.#token = (this.#token + 1) & 0xffff;
    return this.#token;
  }
}
