/** One device's session as its network server keeps it: counters, and the MAC commands that wait for a downlink. */
import type { QueueItem } from "./lora-server-dialect.ts";
import { type DataFrame, encodeDataFrame, openDataFrame } from "./lorawan-frame.ts";
import type { SessionKeys } from "./lorawan-join.ts";
import { linkAdrRequest, macCommandIds, readMacCommands } from "./lorawan-mac-command.ts";

/** LoRaWAN 1.0.3: a counter that has jumped further is of another session. */
const counterGapMax = 16_384;
const fOptsBytesMax = 15;

export class ServerSession {
  readonly devAddr: number;
  readonly #keys: SessionKeys;
  /** The lowest counter that is new. */
  #nextUp = 0;
  #nextDown = 0;
  #owesAck = false;
  #commands: Uint8Array[] = [];
  /** A confirmed downlink that the device's next frame has to acknowledge. */
  #unacknowledged: { readonly item: QueueItem; readonly frameCounter: number } | undefined;

  constructor(devAddr: number, keys: SessionKeys) {
    this.devAddr = devAddr;
    this.#keys = keys;
  }

  get hasCommands(): boolean {
    return this.#commands.length > 0;
  }

  requestDataRate(dataRate: number, transmissions: number): void {
    this.#commands.push(linkAdrRequest(dataRate, transmissions));
  }

  requestStatus(times: number): void {
    for (let i = 0; i < times; i++) this.#commands.push(Uint8Array.of(macCommandIds.devStatus));
  }

  /** Undefined where it is not of this session, or older than the last. The last itself opens once more: a device may repeat it. */
  open(phyPayload: Uint8Array): DataFrame | undefined {
    const frame = openDataFrame(phyPayload, this.#keys, Math.max(0, this.#nextUp - 1));
    return frame && frame.frameCounter < this.#nextUp + counterGapMax ? frame : undefined;
  }

  isRepeated(frame: DataFrame): boolean {
    return frame.frameCounter < this.#nextUp;
  }

  /** Takes what open() gave; returns what became of a confirmed downlink. */
  take(frame: DataFrame):
    | {
        readonly item: QueueItem;
        readonly frameCounter: number;
        readonly isAcknowledged: boolean;
      }
    | undefined {
    this.#owesAck = frame.confirmed;
    if (this.isRepeated(frame)) return undefined;
    this.#nextUp = frame.frameCounter + 1;
    for (const { id } of readMacCommands(frame.port === 0 ? frame.payload : frame.fOpts, "up")) {
      if (id === macCommandIds.linkCheck) this.#commands.push(Uint8Array.of(macCommandIds.linkCheck, 10, 1));
    }
    const sent = this.#unacknowledged;
    this.#unacknowledged = undefined;
    return sent && { ...sent, isAcknowledged: frame.ack };
  }

  /** The next downlink, with as many commands as fit beside the item. */
  downlink(
    item: QueueItem | undefined,
    bytesMax: number,
    pending: boolean,
  ): { readonly phyPayload: Uint8Array; readonly frameCounter: number } {
    const room = Math.min(fOptsBytesMax, bytesMax - (item?.bytes.length ?? 0));
    const fOpts: number[] = [];
    while (this.#commands.length > 0 && fOpts.length + this.#commands[0]!.length <= room)
      fOpts.push(...this.#commands.shift()!);
    const frameCounter = this.#nextDown++;
    const phyPayload = encodeDataFrame(
      {
        direction: "down",
        confirmed: item?.confirmed ?? false,
        devAddr: this.devAddr,
        adr: true,
        adrAckRequest: false,
        ack: this.#owesAck,
        pending,
        frameCounter,
        fOpts: Uint8Array.from(fOpts),
        ...(item && { port: item.port }),
        payload: item?.bytes ?? new Uint8Array(0),
      },
      this.#keys,
    );
    if (item?.confirmed === true) this.#unacknowledged = { item, frameCounter };
    return { phyPayload, frameCounter };
  }
}
