/** Watches a stream of MQTT bytes for packets that a peer should not send, before any of them is gathered in memory. */
import type { Readable } from "node:stream";

export interface MqttPacketLimits {
  /** Of the remaining length: all of a packet but its fixed header. */
  readonly bytesMax: number;
  /** 1 where nothing of QoS 2 can rightly come: a receiver keeps such messages until the sender releases them. */
  readonly qosMax?: 1 | 2;
}

/** MQTT 3.1.1 §2.2.3: after the first byte, the remaining length in 1 to 4 bytes of 7 bits, the least significant first. */
export class MqttPacketGuard {
  readonly #limits: MqttPacketLimits;
  #skip = 0;
  #lengthBytes = -1; // −1: the first byte of a packet comes next
  #length = 0;

  constructor(limits: MqttPacketLimits) {
    this.#limits = limits;
  }

  /** Takes the next bytes. Says what was got where a packet is over the limits, or is none; undefined where all is well. */
  push(chunk: Uint8Array): string | undefined {
    const { bytesMax, qosMax = 2 } = this.#limits;
    let offset = 0;
    while (offset < chunk.length) {
      if (this.#skip > 0) {
        const step = Math.min(this.#skip, chunk.length - offset);
        this.#skip -= step;
        offset += step;
        continue;
      }
      const byte = chunk[offset++] as number;
      if (this.#lengthBytes < 0) {
        if (byte >> 4 === 3 && ((byte >> 1) & 3) > qosMax) return "a message of QoS 2"; // PUBLISH: §3.3.1.2
        this.#lengthBytes = 0;
        this.#length = 0;
        continue;
      }
      this.#length += (byte & 0x7f) * 128 ** this.#lengthBytes++;
      if (this.#lengthBytes > 4) return "a packet whose length has more than 4 bytes";
      // An unfinished length only grows: it need not be waited for.
      if (this.#length > bytesMax) return `a packet of ${this.#length} bytes or more`;
      if ((byte & 0x80) === 0) {
        this.#skip = this.#length;
        this.#lengthBytes = -1;
      }
    }
    return undefined;
  }
}

/** Destroys a stream whose bytes are over the limits, and then calls onOffence with what was got. */
export function guardMqttStream(stream: Readable, limits: MqttPacketLimits, onOffence: (got: string) => void): void {
  const packets = new MqttPacketGuard(limits);
  const watch = (chunk: Buffer): void => {
    const got = packets.push(chunk);
    if (got === undefined) return;
    stream.off("data", watch);
    stream.destroy(); // the reader sees this chunk, and none after it
    onOffence(got);
  };
  // Not on(): it would start the flow itself, and before the reader is there.
  stream.prependListener("data", watch);
}
