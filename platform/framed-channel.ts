/** Messages over a byte stream between two processes: a length of 4 bytes, big-endian, then the message. */

export const frameHeaderBytes = 4;

/** Cuts a stream into messages. Fed any pieces; no stream and no timer inside. */
export class FrameParser {
  readonly #bytesMax: number;
  #pending: Buffer = Buffer.alloc(0);

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** The messages that these bytes complete. Throws RangeError on a length above the limit: the stream is then unusable. */
  push(bytes: Uint8Array): Uint8Array[] {
    this.#pending = this.#pending.length === 0 ? Buffer.from(bytes) : Buffer.concat([this.#pending, bytes]);
    const messages: Uint8Array[] = [];
    while (this.#pending.length >= frameHeaderBytes) {
      const length = this.#pending.readUInt32BE(0);
      if (length > this.#bytesMax) throw new RangeError(`a message of ${length} bytes, at most ${this.#bytesMax}`);
      if (this.#pending.length < frameHeaderBytes + length) break;
      messages.push(new Uint8Array(this.#pending.subarray(frameHeaderBytes, frameHeaderBytes + length)));
      this.#pending = this.#pending.subarray(frameHeaderBytes + length);
    }
    return messages;
  }
}

export function frameOf(message: Uint8Array): Uint8Array {
  const frame = Buffer.alloc(frameHeaderBytes + message.length);
  frame.writeUInt32BE(message.length, 0);
  frame.set(message, frameHeaderBytes);
  return frame;
}
