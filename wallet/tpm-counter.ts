/**
 * A counter in a TPM 2.0 that only rises: what a card restored from an image cannot bring back. Speaks the four commands that
 * it needs (TPM 2.0 Library, part 3, §31: NV_ReadPublic, NV_DefineSpace, NV_Increment, NV_Read) to the kernel's resource
 * manager (/dev/tpmrm0) or to a socket (swtpm).
 */
import { closeSync, constants, openSync, readSync, type Stats, statSync, writeSync } from "node:fs";
import { createConnection } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

/** An index of the owner's own range (TCG registry of reserved handles); another wallet of the same machine takes another. */
export const tpmIndexDefault = 0x0180_0ec0;
export const tpmIndexRange = { min: 0x0180_0000, max: 0x01bf_ffff } as const;

const answerBytesMax = 4_096;
const answerTimeoutMs = 5_000;
const triesMax = 20;
const retryMs = 100;

const commandCodes = { defineSpace: 0x12a, increment: 0x134, read: 0x14e, readPublic: 0x169 } as const;
const tag = { noSessions: 0x8001, sessions: 0x8002 } as const;
const ownerHandle = 0x4000_0001;
const passwordSession = 0x4000_0009;
const sha256Algorithm = 0x000b;

/** TPMA_NV (part 2, §13.4): AUTHWRITE, type counter, OWNERREAD, AUTHREAD, NO_DA. */
const counterAttributes = 0x0206_0014;
const typeMask = 0xf0;
const counterType = 0x10;

/** Response codes (part 2, §6.6) that mean "ask again": YIELDED, TESTING, NV_RATE, RETRY. */
const askAgain = [0x908, 0x90a, 0x920, 0x922];
/** HANDLE, of the first handle: there is no such index. */
const noSuchHandle = 0x18b;
/** NV_UNINITIALIZED: the index was never written. */
const neverWritten = 0x14a;
const codeTexts: Readonly<Record<number, string>> = {
  256: "the TPM was not started (TPM2_Startup)",
  329: "this index may not be used by everybody who may use the TPM (NV_AUTHORIZATION)",
  331: "no room for another index (NV_SPACE)",
  332: "the index is there already (NV_DEFINED)",
  2337: "the TPM is locked out after wrong passwords (LOCKOUT)",
  2466: "the TPM's owner has a password: define the index with it, by tpm2_nvdefine (BAD_AUTH)",
};

/** The TPM cannot be asked, or refuses. The message says what and where. */
export class TpmError extends Error {
  /** The TPM's response code, where it gave one. */
  readonly code: number | undefined;
  constructor(message: string, code?: number) {
    super(message);
    this.name = "TpmError";
    this.code = code;
  }
}

export class TpmCounter {
  readonly #path: string;
  readonly #index: number;

  constructor(path: string, index = tpmIndexDefault) {
    this.#path = path;
    this.#index = index;
  }

  /** The counter; undefined where there is none of this index. Throws {@link TpmError}. */
  async read(): Promise<number | undefined> {
    const publicArea = await this.#ask(commandCodes.readPublic, [this.#index], undefined, [noSuchHandle]);
    if (publicArea === undefined) return undefined;
    const attributes = publicArea.length >= 22 ? publicArea.readUInt32BE(18) : 0; // header 10, size 2, index 4, algorithm 2
    if ((attributes & typeMask) !== counterType)
      throw new TpmError(`index ${hex(this.#index)} of ${this.#path} is no counter; choose another --tpm-index`);
    const body = sized(integer16(8), integer16(0)); // 8 bytes from offset 0
    const answer = await this.#ask(commandCodes.read, [this.#index, this.#index], body, [neverWritten]);
    return answer === undefined ? 0 : this.#valueIn(answer);
  }

  /** Makes the counter, and counts once: before that it has no value. The TPM's owner must have no password. */
  async define(): Promise<void> {
    const publicArea = sized(
      integer32(this.#index),
      integer16(sha256Algorithm),
      integer32(counterAttributes),
      integer16(0),
      integer16(8),
    );
    const body = sized(integer16(0), integer16(publicArea.length), publicArea);
    await this.#ask(commandCodes.defineSpace, [ownerHandle], body);
    await this.increment();
  }

  /** Counts once. It is done when this returns; where it throws nobody knows. */
  async increment(): Promise<void> {
    await this.#ask(commandCodes.increment, [this.#index, this.#index], sized());
  }

  #valueIn(answer: Buffer): number {
    // Header 10, size of the parameters 4, size of the buffer 2.
    const value = answer.length >= 24 && answer.readUInt16BE(14) === 8 ? answer.readBigUInt64BE(16) : undefined;
    if (value === undefined || value > BigInt(Number.MAX_SAFE_INTEGER))
      throw new TpmError(`${this.#path}: index ${hex(this.#index)} holds no number that could be counted on`);
    return Number(value);
  }

  /** The answer to a command; undefined where the TPM answers with one of the `absent` codes. With `body` it is authorised. */
  async #ask(
    code: number,
    handles: readonly number[],
    body?: Buffer,
    absent: readonly number[] = [],
  ): Promise<Buffer | undefined> {
    const session = sized(integer32(passwordSession), integer16(0), Buffer.from([0]), integer16(0));
    const authorisation = body ? sized(integer32(session.length), session) : Buffer.alloc(0);
    const rest = sized(...handles.map(integer32), authorisation, body ?? Buffer.alloc(0));
    const head = sized(integer16(body ? tag.sessions : tag.noSessions), integer32(10 + rest.length), integer32(code));
    for (let tries = 1; ; tries++) {
      const answer = await transact(this.#path, sized(head, rest));
      const result = answer.readUInt32BE(6);
      if (result === 0) return answer;
      if (absent.includes(result)) return undefined;
      if (!askAgain.includes(result) || tries === triesMax)
        throw new TpmError(
          `${this.#path} refuses, index ${hex(this.#index)}: ${codeTexts[result] ?? `response code ${hex(result)}`}`,
          result,
        );
      await pause(retryMs);
    }
  }
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

function integer16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function integer32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function sized(...parts: readonly Buffer[]): Buffer {
  return Buffer.concat(parts);
}

/** One command, one answer, on a connection of its own: others use the TPM as well. */
async function transact(path: string, command: Buffer): Promise<Buffer> {
  let found: Stats;
  try {
    found = statSync(path);
  } catch (error) {
    throw new TpmError(`no TPM at ${path}: ${(error as Error).message}`);
  }
  if (!found.isSocket() && !found.isCharacterDevice())
    throw new TpmError(`${path} is no TPM: a device such as /dev/tpmrm0 or a socket was expected`);
  const answer = found.isSocket() ? await transactAtSocket(path, command) : transactAtDevice(path, command);
  if (answer.length < 10 || answer.readUInt32BE(2) !== answer.length)
    throw new TpmError(`${path} is no TPM: it answers with ${answer.length} bytes that are no response`);
  return answer;
}

function transactAtDevice(path: string, command: Buffer): Buffer {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, constants.O_RDWR);
    writeSync(descriptor, command);
    const answer = Buffer.alloc(answerBytesMax);
    return answer.subarray(0, readSync(descriptor, answer, 0, answer.length, null));
  } catch (error) {
    throw new TpmError(`the TPM at ${path} cannot be used: ${(error as Error).message}`);
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

function transactAtSocket(path: string, command: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    let answer = Buffer.alloc(0);
    const done = (error?: TpmError): void => {
      clearTimeout(timer);
      socket.destroy();
      if (error) reject(error);
      else resolve(answer);
    };
    const timer = setTimeout(() => done(new TpmError(`the TPM at ${path} does not answer`)), answerTimeoutMs);
    socket.on("error", (error) => done(new TpmError(`the TPM at ${path} cannot be reached: ${error.message}`)));
    socket.on("close", () => done(new TpmError(`the TPM at ${path} went away in the middle`)));
    socket.on("data", (bytes) => {
      answer = Buffer.concat([answer, bytes]);
      const length = answer.length >= 6 ? answer.readUInt32BE(2) : 10;
      if (answer.length >= length || answer.length > answerBytesMax) done();
    });
    socket.write(command);
  });
}
