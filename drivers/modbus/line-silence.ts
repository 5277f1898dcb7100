/** The silence that a line must keep before a request: by the monotonic clock, and again whenever a byte came meanwhile. */
import { neverQuietError } from "./register-read.ts";

export interface LineSilenceOptions {
  /** For messages: `/dev/ttyUSB0 at 9600 8N1`. */
  readonly description: string;
  /** Silence between frames: t3.5; 0 for TCP. */
  readonly frameGapMs: number;
  /** Monotonic milliseconds. */
  readonly nowMs: () => number;
  /** Aborted when the line is closed: a wait then ends at once. */
  readonly closing: AbortSignal;
}

/** How long bytes that nobody asked for may keep a read from being sent. */
const noiseMaxMs = 2000;
/**
 * Up to so long a wait holds the whole thread: t3.5 is 2.01 ms at 19200 8E1 and 1.75 ms above, and Node's timers, of whole
 * milliseconds, fire up to one early and more than one late. Bytes that come meanwhile are seen after the request; its CRC decides then.
 */
const holdMaxMs = 2.1;
/** How much later than asked a held thread goes on; what is missing then is waited for once more. */
const wakeLateMs = 0.05;

/** Nobody ever wakes it: to sleep for fractions of a millisecond without using the processor. */
const never = new Int32Array(new SharedArrayBuffer(4));

export class LineSilence {
  readonly #options: LineSilenceOptions;
  #lastActivityMs = Number.NEGATIVE_INFINITY;

  constructor(options: LineSilenceOptions) {
    this.#options = options;
  }

  /** The line is busy until `atMs`: a byte came, or the last one of a request leaves then. */
  brokenAt(atMs: number): void {
    this.#lastActivityMs = atMs;
  }

  /**
   * Waits out the drain, the gap and t3.5. Ends early when the line is closed.
   * @param gapMs where t3.5 is longer, that; and only that is kept to a tenth of a millisecond, a gap may be a millisecond longer
   * @param readyAtMs nothing may be sent before this, as it stands at the moment of asking (LineProtocol.readyAtMs)
   * @throws DriverError crc-error when bytes come without end
   */
  async wait(gapMs: number, readyAtMs: () => number): Promise<void> {
    const { description, frameGapMs, nowMs, closing } = this.#options;
    const gap = Math.max(gapMs, frameGapMs);
    const isExact = gapMs <= frameGapMs;
    const quietAtMs = (): number => Math.max(readyAtMs(), this.#lastActivityMs + gap);
    // Only bytes that keep coming can move the moment on: a second master, or a driver that is stuck.
    const giveUpAtMs = Math.max(nowMs(), quietAtMs()) + noiseMaxMs;
    while (!closing.aborted) {
      const restMs = quietAtMs() - nowMs();
      if (restMs <= 0) return;
      if (nowMs() > giveUpAtMs) throw neverQuietError(description);
      if (!isExact) await this.#pause(restMs);
      else if (restMs > holdMaxMs) await this.#pause(Math.floor(restMs - 1.1));
      else hold(restMs > wakeLateMs ? restMs - wakeLateMs : restMs);
    }
  }

  #pause(durationMs: number): Promise<void> {
    return new Promise((resolve) => {
      const { closing } = this.#options;
      const done = (): void => {
        clearTimeout(timer);
        closing.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, Math.max(1, durationMs));
      closing.addEventListener("abort", done, { once: true });
    });
  }
}

function hold(durationMs: number): void {
  Atomics.wait(never, 0, 0, durationMs);
}
