/** The agent's end of the wallet's socket: one request at a time, connected again by itself. */
import { createConnection, type Socket } from "node:net";
import { BackOff } from "../platform/back-off.ts";
import { FrameParser, frameOf } from "../platform/framed-channel.ts";
import type { CborMap } from "../protocol/deterministic-cbor.ts";
import { Refusal } from "../protocol/refusal.ts";
import { readHello, type WalletHello } from "../protocol/wallet-hello.ts";
import {
  decodeAnswer,
  encodeWalletRequest,
  type ReadAnswer,
  type ReleaseAnswer,
  readEnrolAnswer,
  readReadAnswer,
  readReleaseAnswer,
  readSealAnswer,
  readStatementAnswer,
  type SealAnswer,
  type SealRequest,
  WalletRefusal,
  type WalletRequest,
  walletMessageBytesMax,
} from "../protocol/wallet-message.ts";
import { pause } from "./pause.ts";

/** The wallet is not there, or has gone in the middle: nothing is known of the request; ask again. */
export class WalletUnavailable extends Error {
  constructor(message: string) {
    super(message);
    this.name = "WalletUnavailable";
  }
}

interface Waiting {
  readonly id: number;
  readonly resolve: (fields: CborMap) => void;
  readonly reject: (error: Error) => void;
}

export class WalletClient {
  readonly path: string;
  #socket: Socket | undefined;
  #waiting: Waiting | undefined;
  #tail: Promise<unknown> = Promise.resolve();
  #nextId = 1;
  #closed = false;
  readonly #answerTimeoutMs: number;
  readonly #onState: (connected: boolean, detail?: string) => void;

  constructor(
    path: string,
    onState: (connected: boolean, detail?: string) => void = () => undefined,
    answerTimeoutMs = 15_000,
  ) {
    this.path = path;
    this.#onState = onState;
    this.#answerTimeoutMs = answerTimeoutMs;
  }

  hello(): Promise<WalletHello> {
    return this.#request({ type: "hello" }, readHello);
  }
  enrol(): Promise<Uint8Array> {
    return this.#request({ type: "enrol" }, readEnrolAnswer);
  }
  /** Seals rows. Throws {@link WalletRefusal}, or {@link WalletUnavailable}, after which the same call is safe. */
  seal(request: Omit<SealRequest, "type">): Promise<SealAnswer> {
    return this.#request({ type: "seal", ...request }, readSealAnswer);
  }
  /** Records of an epoch; where none is named, of the running one. `bare`: in the form for LoRaWAN, those that may leave so. */
  read(from: number, to: number, epoch?: number, bare = false): Promise<ReadAnswer> {
    const request = { type: "read", from, to, ...(epoch !== undefined && { epoch }), ...(bare && { bare }) } as const;
    return this.#request(request, readReadAnswer);
  }
  /** A signed statement over a period, in Unix seconds. */
  statement(meter: number, fromS: number, toS: number): Promise<Uint8Array> {
    return this.#request({ type: "statement", meter, fromS, toS }, readStatementAnswer);
  }
  release(receipt: Uint8Array): Promise<ReleaseAnswer> {
    return this.#request({ type: "release", receipt }, readReleaseAnswer);
  }

  /** Waits until the wallet answers a hello. Rejects when `signal` aborts. */
  async connected(signal: AbortSignal): Promise<WalletHello> {
    const backOff = new BackOff({ firstMs: 50, longestMs: 500 });
    for (;;) {
      signal.throwIfAborted();
      try {
        return await this.hello();
      } catch (error) {
        if (!(error instanceof WalletUnavailable)) throw error;
        await pause(backOff.next(), signal);
      }
    }
  }

  close(): void {
    this.#closed = true;
    this.#socket?.destroy();
  }

  #request<T>(request: WalletRequest, read: (fields: CborMap) => T): Promise<T> {
    const result = this.#tail.then(async () => {
      const fields = await this.#exchange(request);
      try {
        return read(fields);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        this.#socket?.destroy(error);
        throw this.#unavailable(`its answer makes no sense: ${error.message}`);
      }
    });
    this.#tail = result.catch(() => undefined);
    return result;
  }

  #unavailable(reason: string): WalletUnavailable {
    return new WalletUnavailable(`the wallet at ${this.path} is not reachable: ${reason}`);
  }

  async #exchange(request: WalletRequest): Promise<CborMap> {
    if (this.#closed) throw this.#unavailable("closed on this side");
    const dying = this.#socket?.destroyed ? this.#socket : undefined;
    if (dying) await new Promise((resolve) => dying.once("close", resolve));
    const socket = this.#socket ?? (await this.#connect());
    const id = this.#nextId++ % 0xffff_ffff;
    return new Promise<CborMap>((resolve, reject) => {
      const timer = setTimeout(() => {
        socket.destroy(new Error(`no answer within ${this.#answerTimeoutMs} ms`));
      }, this.#answerTimeoutMs);
      const settle =
        <T>(action: (value: T) => void) =>
        (value: T): void => {
          clearTimeout(timer);
          this.#waiting = undefined;
          action(value);
        };
      this.#waiting = { id, resolve: settle(resolve), reject: settle(reject) };
      socket.write(frameOf(encodeWalletRequest(id, request)));
    });
  }

  #connect(): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = createConnection(this.path);
      const parser = new FrameParser(walletMessageBytesMax);
      let reason = "the wallet closed the connection";
      let open = false;
      socket.once("connect", () => {
        if (this.#closed) {
          socket.destroy();
          return;
        }
        open = true;
        this.#socket = socket;
        this.#onState(true);
        resolve(socket);
      });
      socket.on("error", (error) => {
        reason = error.message;
      });
      socket.once("close", () => {
        const error = this.#unavailable(reason);
        if (!open) {
          reject(error);
          return;
        }
        this.#socket = undefined;
        if (!this.#closed) this.#onState(false, reason);
        this.#waiting?.reject(error);
      });
      socket.on("data", (bytes) => {
        try {
          for (const message of parser.push(bytes)) this.#settle(message);
        } catch (error) {
          socket.destroy(error as Error);
        }
      });
    });
  }

  #settle(message: Uint8Array): void {
    const { id, fields } = decodeAnswer(message);
    const waiting = this.#waiting;
    if (waiting === undefined || waiting.id !== id) throw new Error(`an answer to ${id}, which was not asked`);
    if (fields instanceof WalletRefusal) waiting.reject(fields);
    else waiting.resolve(fields);
  }
}
