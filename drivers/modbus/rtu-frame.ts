/**
 * Modbus RTU frames: pure codec, no port and no clock.
 *
 * "MODBUS over Serial Line" V1.02 §2.5.1 (frame, CRC) and "MODBUS Application Protocol" V1.1b3 §6 (the functions).
 * Frames are found by their length and their CRC. Silence, by which §2.5.1.1 delimits them, is only a hint here, since
 * USB adapters deliver bytes in lumps.
 */

/** Longest RTU frame: unit, 253 bytes of PDU, CRC (§2.5.1). */
export const rtuFrameBytesMax = 256;
/** Length of every exception answer: unit, function | 0x80, code, CRC. */
export const exceptionFrameBytes = 5;

const crcTable = new Uint16Array(256);
for (let byte = 0; byte < 256; byte++) {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xa001 : crc >>> 1;
  crcTable[byte] = crc;
}

/** CRC-16/MODBUS over `bytes[start, end)` (§6.2.2, polynomial 0xA001 reflected, start value 0xFFFF). */
export function crc16(bytes: Uint8Array, start = 0, end = bytes.length): number {
  let crc = 0xffff;
  for (let i = start; i < end; i++) crc = (crc >>> 8) ^ crcTable[(crc ^ bytes[i]!) & 0xff]!;
  return crc;
}

/** Unit and PDU as one frame with its CRC, low byte first. */
export function encodeRtuFrame(unit: number, pdu: Uint8Array): Uint8Array {
  const frame = new Uint8Array(pdu.length + 3);
  frame[0] = unit;
  frame.set(pdu, 1);
  const crc = crc16(frame, 0, frame.length - 2);
  frame[frame.length - 2] = crc & 0xff;
  frame[frame.length - 1] = crc >>> 8;
  return frame;
}

/** Request of functions 1–4 (§6.1–6.4 of the application protocol) as a frame. */
export function encodeReadRequest(read: {
  readonly unit: number;
  readonly functionCode: number;
  readonly address: number;
  readonly count: number;
}): Uint8Array {
  const { address, count } = read;
  const pdu = [read.functionCode, address >>> 8, address & 0xff, count >>> 8, count & 0xff];
  return encodeRtuFrame(read.unit, Uint8Array.from(pdu));
}

/** True when the last two of `bytes[start, end)` are the CRC of those before. */
export function hasValidCrc(bytes: Uint8Array, start = 0, end = bytes.length): boolean {
  return end - start >= 4 && crc16(bytes, start, end - 2) === (bytes[end - 2]! | (bytes[end - 1]! << 8));
}

/**
 * Length in bytes of the normal answer to a request frame, CRC included; undefined where only the answer tells it
 * (17 report server id, 43 device identification). Functions 1–4: §6.1–6.4.
 */
export function replyLengthOf(request: Uint8Array): number | undefined {
  const functionCode = request[1];
  const count = (request[4]! << 8) | request[5]!;
  if (functionCode === 1 || functionCode === 2) return 5 + Math.ceil(count / 8);
  if (functionCode === 3 || functionCode === 4) return 5 + 2 * count;
  return undefined;
}

/**
 * Length of the frame that would begin at `start`: a number once its header says so, `incomplete` while it cannot be
 * told, `none` when no frame begins like that.
 */
type FrameLength = number | "incomplete" | "none";
type LengthRule = (bytes: Uint8Array, start: number, end: number) => FrameLength;

/** Answers of functions 1–4, 17 and 43 and their exceptions, from units 1–247. */
export const answerLength: LengthRule = (bytes, start, end) => {
  const unit = bytes[start]!;
  if (unit < 1 || unit > 247) return "none";
  if (end - start < 2) return "incomplete";
  const functionCode = bytes[start + 1]!;
  switch (functionCode) {
    case 1:
    case 2:
    case 3:
    case 4:
    case 17: {
      if (end - start < 3) return "incomplete";
      const byteCount = bytes[start + 2]!;
      const odd = (functionCode === 3 || functionCode === 4) && byteCount % 2 === 1;
      return byteCount === 0 || byteCount > 250 || odd ? "none" : byteCount + 5;
    }
    case 43:
      return identificationLength(bytes, start, end);
    case 0x81:
    case 0x82:
    case 0x83:
    case 0x84:
    case 0x91:
    case 0xab:
      return exceptionFrameBytes;
    default:
      return "none";
  }
};

/** §6.21: header of 8 bytes, then per object its id, its length and its text. */
function identificationLength(bytes: Uint8Array, start: number, end: number): FrameLength {
  if (end - start < 8) return end - start >= 3 && bytes[start + 2] !== 0x0e ? "none" : "incomplete";
  let length = 8;
  for (let object = 0; object < bytes[start + 7]!; object++) {
    if (end - start < length + 2) return "incomplete";
    length += 2 + bytes[start + length + 1]!;
    if (length + 2 > rtuFrameBytesMax) return "none";
  }
  return length + 2;
}

/** Requests as a slave sees them: functions 1–6, 15, 16, 17, 43. */
export const requestLength: LengthRule = (bytes, start, end) => {
  if (bytes[start]! > 247) return "none";
  if (end - start < 2) return "incomplete";
  const functionCode = bytes[start + 1]!;
  if (functionCode >= 1 && functionCode <= 6) return 8;
  if (functionCode === 15 || functionCode === 16) {
    if (end - start < 7) return "incomplete";
    const length = 9 + bytes[start + 6]!;
    return length > rtuFrameBytesMax ? "none" : length;
  }
  if (functionCode === 17) return 4;
  if (functionCode === 43) return 7;
  return "none";
};

/**
 * Incremental parser: bytes in, whole frames with a valid CRC out, whatever the pieces are.
 *
 * After garbage it finds the next frame by itself: a byte with which no valid frame begins is rejected and counted. Only
 * bytes that look like the head of a longer frame hold it up, until the rest of that frame has come or until `rescan`.
 */
export class RtuParser {
  /** Bytes thrown away because they belonged to no valid frame, since the parser was made. */
  rejectedBytes = 0;
  readonly #lengthOf: LengthRule;
  readonly #buffer = new Uint8Array(2 * rtuFrameBytesMax);
  #used = 0;

  constructor(lengthOf: LengthRule) {
    this.#lengthOf = lengthOf;
  }

  /** Bytes held that are neither frame nor rejected yet. */
  get pendingBytes(): number {
    return this.#used;
  }

  /** Takes bytes; gives the frames that they complete (copies, oldest first). */
  push(bytes: Uint8Array): Uint8Array[] {
    const frames: Uint8Array[] = [];
    for (let taken = 0; taken < bytes.length; ) {
      // Whatever is held is a head of at most 256 bytes, so there is room for at least as many in the buffer of 512.
      const piece = bytes.subarray(taken, taken + this.#buffer.length - this.#used);
      this.#buffer.set(piece, this.#used);
      this.#used += piece.length;
      taken += piece.length;
      this.#extract(frames);
    }
    return frames;
  }

  /**
   * To be called when the line has fallen silent: looks for a whole frame behind a head that never got its rest. Takes
   * nothing away unless it finds one, so a frame that was only slow is not harmed.
   */
  rescan(): Uint8Array[] {
    for (let start = 1; start < this.#used; start++) {
      const length = this.#lengthOf(this.#buffer, start, this.#used);
      if (typeof length !== "number" || start + length > this.#used) continue;
      if (!hasValidCrc(this.#buffer, start, start + length)) continue;
      this.#reject(start);
      const frames: Uint8Array[] = [];
      this.#extract(frames);
      return frames;
    }
    return [];
  }

  /** Forgets what is held; it counts as rejected. */
  clear(): void {
    this.#reject(this.#used);
  }

  #extract(frames: Uint8Array[]): void {
    while (this.#used > 0) {
      const length = this.#lengthOf(this.#buffer, 0, this.#used);
      if (length === "incomplete" || (typeof length === "number" && length > this.#used)) return;
      if (length === "none" || !hasValidCrc(this.#buffer, 0, length)) {
        this.#reject(1);
      } else {
        frames.push(this.#buffer.slice(0, length));
        this.#drop(length);
      }
    }
  }

  #reject(count: number): void {
    this.rejectedBytes += count;
    this.#drop(count);
  }

  #drop(count: number): void {
    this.#buffer.copyWithin(0, count, this.#used);
    this.#used -= count;
  }
}
