/**
 * Reads a serial port with few wake-ups, through serialport's own poller and not through its stream.
 *
 * The stream reads first and waits for readability then, each in the thread pool: about 0.1 ms of CPU for every piece of a few
 * characters. Here the descriptor, which never blocks, is read when it is readable; and once the first bytes of an expected
 * answer are there, not again before the others can be.
 */
import { readSync } from "node:fs";

/** What is needed of serialport's Linux binding. */
export interface PollingBinding {
  fd: number | null;
  readonly poller: { once(event: "readable", listener: (error: Error | null) => void): unknown };
}

/** Whether it is the binding that this was written for; another one is read through its stream. */
export function isPollingBinding(binding: object | undefined): binding is PollingBinding {
  return binding !== undefined && "poller" in binding && "fd" in binding;
}

/** More than a frame. */
const readBytesMax = 1024;
/** A timer may be late by that much, and an answer that waits for its timer is an answer too late. */
const timerLateMs = 1.2;

export class SerialReader {
  readonly #binding: PollingBinding;
  readonly #onBytes: (bytes: Uint8Array) => void;
  readonly #onLost: (error: Error) => void;
  readonly #buffer = new Uint8Array(readBytesMax);
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  #expectedBytes = 0;
  #characterMs = 0;

  /** @param onLost called at most once, when the line was hung up or reading fails; reading has ended then */
  constructor(binding: PollingBinding, onBytes: (bytes: Uint8Array) => void, onLost: (error: Error) => void) {
    this.#binding = binding;
    this.#onBytes = onBytes;
    this.#onLost = onLost;
  }

  start(): void {
    this.#arm();
  }

  /** As {@link ByteTransport.expect}; 0 bytes: nothing is expected any more. */
  expect(bytes: number, characterMs: number): void {
    this.#expectedBytes = bytes;
    this.#characterMs = characterMs;
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#arm();
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  #arm(): void {
    if (this.#isStopped || this.#binding.fd === null) return;
    this.#binding.poller.once("readable", (error) => {
      if (this.#isStopped || (error as { canceled?: boolean } | null)?.canceled === true) return;
      if (error) this.#lose(error);
      else if (this.#read()) this.#rest();
    });
  }

  /** Waits until the rest of what is expected can be there. */
  #rest(): void {
    if (this.#isStopped) return;
    const restMs = Math.floor(this.#expectedBytes * this.#characterMs - timerLateMs);
    if (restMs < 1) {
      this.#arm();
      return;
    }
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#read()) this.#arm();
    }, restMs);
  }

  /** Takes what is there; false when the port is lost. Nothing being there is no fault. */
  #read(): boolean {
    const { fd } = this.#binding;
    if (fd === null || this.#isStopped) return false;
    let bytesRead: number;
    try {
      bytesRead = readSync(fd, this.#buffer);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === "EAGAIN" || code === "EWOULDBLOCK" || code === "EINTR") return true;
      this.#lose(error as Error);
      return false;
    }
    if (bytesRead === 0) {
      // The binding would read again, for ever and at full speed, and the port would look open and silent. With vmin 1 and a
      // descriptor that never blocks, zero bytes mean that the line was hung up.
      this.#lose(new Error("end of file: the line was hung up"));
      return false;
    }
    this.#expectedBytes = Math.max(0, this.#expectedBytes - bytesRead);
    this.#onBytes(this.#buffer.slice(0, bytesRead));
    return true;
  }

  #lose(error: Error): void {
    this.stop();
    this.#onLost(error);
  }
}
