/** The network server's end of Semtech's UDP protocol: copies of one frame are gathered, downlinks go back through who asked for them. */
import { dataRates, type RegionName } from "../drivers/lora/region.ts";
import type { RadioSettings } from "./lora-airtime-meter.ts";
import type { GatewayCopy } from "./lora-server-dialect.ts";
import { decodeDatagram, encodeDatagram } from "./semtech-udp.ts";
import type { SimulatorTiming } from "./simulator-timing.ts";

export interface ReceivedFrame extends RadioSettings {
  readonly phyPayload: Uint8Array;
  readonly dataRate: number;
  readonly copies: readonly GatewayCopy[];
}

export interface GatewayPortOptions {
  readonly timing: SimulatorTiming;
  readonly region: RegionName;
  readonly deduplicationMs: number;
  /** A frame with all its copies. */
  readonly onFrame: (frame: ReceivedFrame) => void;
}

const gatewaysMax = 64;
const gatheringMax = 1_024;
const phyBytesMax = 255;
const answerTimeoutMs = 1_000;

export class GatewayPort {
  readonly #options: GatewayPortOptions;
  /** Where PULL_DATA of a gateway came from. */
  readonly #routes = new Map<string, (datagram: Uint8Array) => void>();
  readonly #gathering = new Map<string, GatewayCopy[]>();
  readonly #unanswered = new Map<number, (error: string | undefined) => void>();
  #token = 0;

  constructor(options: GatewayPortOptions) {
    this.#options = options;
  }

  receive(bytes: Uint8Array, reply: (datagram: Uint8Array) => void): void {
    const datagram = decodeDatagram(bytes);
    if (datagram?.type === "PULL_DATA") {
      if (this.#routes.size < gatewaysMax || this.#routes.has(datagram.eui)) this.#routes.set(datagram.eui, reply);
      reply(encodeDatagram({ type: "PULL_ACK", token: datagram.token }));
    } else if (datagram?.type === "PUSH_DATA") {
      reply(encodeDatagram({ type: "PUSH_ACK", token: datagram.token }));
      const frames = datagram.json.rxpk;
      if (Array.isArray(frames)) for (const frame of frames) this.#gather(datagram.eui, frame);
    } else if (datagram?.type === "TX_ACK") {
      const { error = "NONE" } = (datagram.json.txpk_ack ?? {}) as { error?: string };
      this.#answered(datagram.token, error === "NONE" ? undefined : error);
    }
  }

  /** Sends `afterS` after the end of the frame that this copy is of. `done` gets the gateway's complaint, or undefined. */
  transmit(
    copy: GatewayCopy,
    { frequencyHz, spreadingFactor, bandwidthKhz }: RadioSettings,
    phyPayload: Uint8Array,
    afterS: number,
    done: (error: string | undefined) => void,
  ): void {
    const route = this.#routes.get(copy.gatewayEui);
    if (route === undefined) {
      done("this gateway never asked for downlinks");
      return;
    }
    this.#token = (this.#token + 1) & 0xffff;
    const token = this.#token;
    this.#unanswered.set(token, done);
    this.#options.timing.after(answerTimeoutMs, () => this.#answered(token, "the gateway did not answer"));
    const txpk = {
      imme: false,
      tmst: (copy.tmst + afterS * 1_000_000) % 2 ** 32,
      freq: frequencyHz / 1e6,
      rfch: 0,
      powe: 14,
      modu: "LORA",
      datr: `SF${spreadingFactor}BW${bandwidthKhz}`,
      codr: "4/5",
      ipol: true,
      size: phyPayload.length,
      data: Buffer.from(phyPayload).toString("base64"),
    };
    route(encodeDatagram({ type: "PULL_RESP", token, json: { txpk } }));
  }

  #answered(token: number, error: string | undefined): void {
    const done = this.#unanswered.get(token);
    this.#unanswered.delete(token);
    done?.(error);
  }

  #gather(gatewayEui: string, rxpk: unknown): void {
    const { tmst, freq, datr, data, rssi, lsnr, stat } = (rxpk ?? {}) as Record<string, unknown>;
    const rate = /^SF(\d{1,2})BW(\d{3})$/.exec(String(datr));
    if (stat !== 1 || rate === null || typeof freq !== "number" || typeof data !== "string") return;
    const spreadingFactor = Number(rate[1]);
    const bandwidthKhz = Number(rate[2]);
    const dataRate = dataRates(this.#options.region).find(
      (known) => known.spreadingFactor === spreadingFactor && known.bandwidthKhz === bandwidthKhz,
    )?.dataRate;
    const phyPayload = Uint8Array.from(Buffer.from(data, "base64"));
    if (dataRate === undefined || phyPayload.length > phyBytesMax) return;
    const copy = { gatewayEui, tmst: Number(tmst), rssiDbm: Number(rssi), snrDb: Number(lsnr) };
    const key = `${datr} ${freq} ${data}`;
    const copies = this.#gathering.get(key);
    if (copies !== undefined) {
      if (copies.length < gatewaysMax) copies.push(copy);
      return;
    }
    if (this.#gathering.size >= gatheringMax) return;
    const first = [copy];
    this.#gathering.set(key, first);
    this.#options.timing.after(this.#options.deduplicationMs, () => {
      this.#gathering.delete(key);
      this.#options.onFrame({
        phyPayload,
        frequencyHz: Math.round(freq * 1e6),
        spreadingFactor,
        bandwidthKhz,
        dataRate,
        copies: first,
      });
    });
  }
}
