/** The modems of enrolled devices by their DevEUI, and which of their frames have come: each frame is taken once. */
import type { LorawanReason } from "./lorawan-uplink.ts";
import type { LorawanBinding, LorawanCounters, LorawanStore } from "./store-lorawan.ts";

/** Frames may come in disorder by so many (and brokers, bridges and servers may bring one twice). */
const windowFrames = 32;

export interface Modem {
  readonly devEui: string;
  /** The device whose records it brings. */
  readonly name: string;
  devAddr: string;
  fCnt: number;
  /** How often the counter began anew: tells frames of one LoRaWAN session from those of another. */
  joins: number;
  lastMs: number;
  receiptMs: number;
  /** Bit i: the frame `fCnt - i` has come. */
  seen: number;
}

export class LorawanModems {
  readonly #store: Pick<LorawanStore, "bindings">;
  #modems = new Map<string, Modem>();

  constructor(store: Pick<LorawanStore, "bindings">) {
    this.#store = store;
  }

  get size(): number {
    return this.#modems.size;
  }

  get(devEui: string): Modem | undefined {
    return this.#modems.get(devEui);
  }

  /** Reads who is bound. What is known of the frames of a modem that still is stays as it is. Gives the DevEUIs that are not any more, or to others. */
  async load(): Promise<string[]> {
    const loaded = new Map<string, Modem>();
    for (const binding of await this.#store.bindings()) {
      const known = this.#modems.get(binding.devEui);
      loaded.set(binding.devEui, known?.name === binding.name ? known : modemOf(binding));
    }
    const gone = [...this.#modems.values()].filter(({ devEui, name }) => loaded.get(devEui)?.name !== name);
    this.#modems = loaded;
    return gone.map(({ devEui }) => devEui);
  }
}

function modemOf({ devEui, name, devAddr, fCnt, joins, lastMs, receiptMs }: LorawanBinding & LorawanCounters): Modem {
  return { devEui, name, devAddr, fCnt, joins, lastMs, receiptMs, seen: fCnt < 0 ? 0 : 1 };
}

/** The device has joined: its counter begins anew. */
export function joined(modem: Modem, devAddr: string | undefined): void {
  modem.joins++;
  modem.fCnt = -1;
  modem.seen = 0;
  if (devAddr !== undefined) modem.devAddr = devAddr;
}

/** Counts a frame. Gives why it is not to be taken, if so. */
export function countFrame(modem: Modem, devAddr: string | undefined, fCnt: number): LorawanReason | undefined {
  if (devAddr !== undefined && devAddr !== modem.devAddr) joined(modem, devAddr);
  const ahead = fCnt - modem.fCnt;
  if (ahead > 0) {
    modem.seen = ahead < windowFrames ? ((modem.seen << ahead) | 1) >>> 0 : 1;
    modem.fCnt = fCnt;
    return undefined;
  }
  if (-ahead >= windowFrames) return "replayed";
  const bit = (1 << -ahead) >>> 0;
  if ((modem.seen & bit) !== 0) return "duplicate";
  modem.seen = (modem.seen | bit) >>> 0;
  return undefined;
}
