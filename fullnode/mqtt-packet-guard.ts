/** Watches a stream of MQTT bytes for packets that are too long, before any of them is gathered in memory. */

export const mqttPacketBytesMax = 65_536;

/** MQTT 3.1.1 §2.2.3: after the first byte, the remaining length in 1 to 4 bytes of 7 bits, the least significant first. */
export class MqttPacketGuard {
  #skip = 0;
  #lengthBytes = -1; // −1: the first byte of a packet comes next
  #length = 0;

  /** Takes the next bytes. Returns the length of a packet that is over the limit, or is none; undefined where all is well. */
  push(chunk: Uint8Array): number | undefined {
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
        this.#lengthBytes = 0;
        this.#length = 0;
        continue;
      }
      this.#length += (byte & 0x7f) * 128 ** this.#lengthBytes++;
      if (this.#length > mqttPacketBytesMax || this.#lengthBytes > 4) return this.#length;
      if ((byte & 0x80) === 0) {
        this.#skip = this.#length;
        this.#lengthBytes = -1;
      }
    }
    return undefined;
  }
}
