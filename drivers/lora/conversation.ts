/** Holds dialogues with whoever is at the far end of a port: the bytes and the time of what dialogue.ts describes. */
import type { ByteTransport } from "../byte-transport.ts";
import type { DriverError } from "../failure.ts";
import type { Dialogue } from "./dialogue.ts";
import type { LoraTiming } from "./modem.ts";
import { LineAssembler } from "./modem-line.ts";

export interface ConversationOptions {
  readonly transport: ByteTransport;
  readonly timing: LoraTiming;
  /** Each line that comes, asked for or not, before the dialogue gets it. */
  readonly onLine?: (line: string, isBannerExpected: boolean) => void;
}

/** Lines that wait to be read; what chatters more than that is no modem. */
const linesMax = 256;
/** A line that came in time may be read so much later, where the machine was busy; a port that chatters ends no dialogue later than that. */
const lateReadMs = 1_000;

/** One dialogue at a time. */
export class Conversation {
  readonly #options: ConversationOptions;
  readonly #assembler = new LineAssembler();
  readonly #lines: string[] = [];
  #isRunning = false;
  #expectsBanner = false;
  #interruption: DriverError | undefined;
  #wake: () => void = () => undefined;

  constructor(options: ConversationOptions) {
    this.#options = options;
    options.transport.onData((bytes) => {
      for (const line of this.#assembler.push(bytes)) this.#hear(line);
    });
  }

  /** The dialogue's outcome. Rejects with what interrupted it, and with what the port says. @throws DriverError */
  async run<T>(dialogue: Dialogue<T>): Promise<T> {
    const { transport, timing } = this.#options;
    this.#isRunning = true;
    this.#expectsBanner = false;
    let untilMs = timing.clock.monotonicMs();
    try {
      let result = dialogue.next();
      while (!result.done) {
        const { write, waitMs, expectsBanner } = result.value;
        if (expectsBanner) this.#expectsBanner = true;
        if (write !== undefined) {
          // Whatever came before this command is no answer to it.
          this.#lines.length = 0;
          if (this.#interruption === undefined) await transport.write(Buffer.from(`${write}\r\n`, "latin1"));
        }
        if (waitMs !== undefined) untilMs = timing.clock.monotonicMs() + waitMs;
        result = dialogue.next(await this.#nextLine(untilMs));
      }
      return result.value;
    } finally {
      this.#isRunning = false;
      this.#expectsBanner = false;
      this.#lines.length = 0;
    }
  }

  /** Ends what runs, and whatever is asked from now on. */
  interrupt(error: DriverError): void {
    this.#interruption ??= error;
    this.#wake();
  }

  async #nextLine(untilMs: number): Promise<string | undefined> {
    const { clock, pause } = this.#options.timing;
    const leftMs = untilMs - clock.monotonicMs();
    if (this.#lines.length === 0 && this.#interruption === undefined && leftMs > 0) {
      const heard = new AbortController();
      this.#wake = () => heard.abort();
      await pause(leftMs, heard.signal);
      this.#wake = () => undefined;
    }
    if (this.#interruption !== undefined) throw this.#interruption;
    return leftMs < -lateReadMs ? undefined : this.#lines.shift();
  }

  #hear(line: string): void {
    this.#options.onLine?.(line, this.#expectsBanner);
    if (!this.#isRunning || this.#lines.length === linesMax) return;
    this.#lines.push(line);
    this.#wake();
  }
}
