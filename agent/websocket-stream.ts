/**
 * MQTT over WebSocket, the client's end (RFC 6455; MQTT 5 §6): bytes in binary frames over a socket that is given. As a stream,
 * so that nothing is gathered: what a frame announces need not come at once. Only what MQTT needs: no extensions, no text.
 */
import { createHash, randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";

const acceptGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; // §1.3
const answerBytesMax = 8_192;
const controlBytesMax = 125; // §5.5
const opcode = { continuation: 0, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export interface WebSocketPlace {
  /** As it stands in the URL, with its port. */
  readonly authority: string;
  readonly path: string;
}

export class WebSocketStream extends Duplex {
  readonly #socket: Socket;
  readonly #place: WebSocketPlace;
  readonly #key = randomBytes(16).toString("base64");
  #isOpen = false;
  #received: Buffer = Buffer.alloc(0);
  /** Of the data frame under way: bytes that are still to come. */
  #frameBytes = 0;
  #whenOpen: (() => void) | undefined;

  /** `connectEvent`: after it the socket can be written to. */
  constructor(socket: Socket, connectEvent: "connect" | "secureConnect", place: WebSocketPlace) {
    super({ allowHalfOpen: false });
    this.#socket = socket;
    this.#place = place;
    socket.once(connectEvent, () => this.#ask());
    socket.on("data", (bytes: Buffer) => {
      try {
        this.#take(bytes);
      } catch (error) {
        this.destroy(error as Error);
      }
    });
    socket.on("error", (error) => this.destroy(error));
    socket.once("close", () => this.destroy());
  }

  #ask(): void {
    const { authority, path } = this.#place;
    const lines = [
      `GET ${path} HTTP/1.1`,
      `Host: ${authority}`,
      "Upgrade: websocket",
      "Connection: Upgrade",
      `Sec-WebSocket-Key: ${this.#key}`,
      "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Protocol: mqtt", // MQTT 5 §6.0: [MQTT-6.0.0-3]
    ];
    this.#socket.write(`${lines.join("\r\n")}\r\n\r\n`);
  }

  #take(bytes: Buffer): void {
    if (this.#frameBytes > 0 && this.#received.length === 0) {
      const data = bytes.subarray(0, this.#frameBytes);
      this.#frameBytes -= data.length;
      this.#hand(data);
      if (data.length === bytes.length) return;
      this.#received = bytes.subarray(data.length);
    } else this.#received = Buffer.concat([this.#received, bytes]);
    if (!this.#isOpen && !this.#takeAnswer()) return;
    while (this.#takeFrame());
  }

  /** Whether the server's answer is there, and agrees (§4.1). */
  #takeAnswer(): boolean {
    const end = this.#received.indexOf("\r\n\r\n");
    if (end > answerBytesMax || (end < 0 && this.#received.length > answerBytesMax))
      throw new Error(`the WebSocket server's answer is longer than ${answerBytesMax} bytes`);
    if (end < 0) return false;
    const [status = "", ...lines] = this.#received.subarray(0, end).toString("latin1").split("\r\n");
    const headers = new Map(
      lines.map((line) => {
        const colon = line.indexOf(":");
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
      }),
    );
    if (!/^HTTP\/1\.1 101\b/.test(status))
      throw new Error(
        `the server does not speak WebSocket at ${this.#place.path}: it answered "${status.slice(0, 80)}"`,
      );
    const accept = createHash("sha1")
      .update(this.#key + acceptGuid)
      .digest("base64");
    if (headers.get("sec-websocket-accept") !== accept)
      throw new Error("the server's answer is not one to this WebSocket request (Sec-WebSocket-Accept)");
    if (headers.get("sec-websocket-protocol") !== "mqtt")
      throw new Error("the WebSocket server does not speak MQTT (no Sec-WebSocket-Protocol: mqtt)");
    this.#received = this.#received.subarray(end + 4);
    this.#isOpen = true;
    this.#whenOpen?.();
    return true;
  }

  /** Takes the next frame, or what is there of its data; false where more must come first (§5.2). */
  #takeFrame(): boolean {
    const bytes = this.#received;
    if (bytes.length < 2) return false;
    const [first = 0, second = 0] = bytes;
    const kind = first & 0x0f;
    const isControl = kind >= opcode.close;
    if ((first & 0x70) !== 0 || (second & 0x80) !== 0) throw new Error("a WebSocket frame that is masked or extended");
    const short = second & 0x7f;
    const headBytes = short === 127 ? 10 : short === 126 ? 4 : 2;
    if (bytes.length < headBytes) return false;
    const length = short === 127 ? Number(bytes.readBigUInt64BE(2)) : short === 126 ? bytes.readUInt16BE(2) : short;
    if (isControl) {
      if (length > controlBytesMax) throw new Error(`a WebSocket control frame of ${length} bytes`);
      if (bytes.length < headBytes + length) return false;
      const body = bytes.subarray(headBytes, headBytes + length);
      this.#received = bytes.subarray(headBytes + length);
      if (kind === opcode.ping) this.#socket.write(frameOf(opcode.pong, body));
      if (kind === opcode.close) this.destroy();
      return kind !== opcode.close;
    }
    if (kind !== opcode.binary && kind !== opcode.continuation)
      throw new Error(`a WebSocket frame of type ${kind}; MQTT travels in binary ones`);
    const data = bytes.subarray(headBytes, headBytes + length);
    this.#frameBytes = length - data.length;
    this.#received = bytes.subarray(headBytes + data.length);
    this.#hand(data);
    return this.#frameBytes === 0;
  }

  #hand(data: Buffer): void {
    if (data.length > 0 && !this.push(data)) this.#socket.pause();
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const write = (): void => {
      this.#socket.write(frameOf(opcode.binary, chunk), (error) => done(error));
    };
    if (this.#isOpen) write();
    else this.#whenOpen = write;
  }

  override _final(done: () => void): void {
    if (this.#isOpen) this.#socket.end(frameOf(opcode.close, Buffer.alloc(0)));
    else this.#socket.destroy();
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }
}

/** A client masks what it sends (§5.3). */
function frameOf(kind: number, data: Buffer): Buffer {
  const { length } = data;
  const headBytes = length > 0xffff ? 10 : length > controlBytesMax ? 4 : 2;
  const frame = Buffer.allocUnsafe(headBytes + 4 + length);
  frame[0] = 0x80 | kind;
  frame[1] = 0x80 | (headBytes === 10 ? 127 : headBytes === 4 ? 126 : length);
  if (headBytes === 4) frame.writeUInt16BE(length, 2);
  if (headBytes === 10) frame.writeBigUInt64BE(BigInt(length), 2);
  const mask = randomBytes(4);
  mask.copy(frame, headBytes);
  for (let i = 0; i < length; i++) frame[headBytes + 4 + i] = (data[i] as number) ^ (mask[i & 3] as number);
  return frame;
}
