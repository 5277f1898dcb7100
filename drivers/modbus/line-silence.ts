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
 * Up to so long the thread is held instead of woken by a timer: t3.5 is 4.01 ms at 9600 8E1 and less at higher speeds. Node's timers, of whole
 * milliseconds, fire up to one early and more than one late, and to be woken twice costs more than the rest of a request. Bytes
 * that come meanwhile are seen after the request; its CRC decides then.
 */
const holdMaxMs = 4.1;
/** A timer may be late by that much. */
const timerLateMs = 1.1;

/** Nobody ever wakes it: to sleep for fractions of a millisecond without using the processor. */
const never = new Int32Array(new SharedArrayBuffer(4));

export class LineSilence {
  readonly #options: LineSilenceOptions;
  #lastActivityMs = Number.NEGATIVE_INFINITY;
  #quietAtMs = (): number => Number.NEGATIVE_INFINITY;
  /** Ends the pause that runs; one listener for all of them, since adding one costs more than the timer. */
  #endPause: () => void = () => undefined;

  constructor(options: LineSilenceOptions) {
    this.#options = options;
    options.closing.addEventListener("abort", () => this.#endPause(), { once: true });
  }

  /** The line is busy until `atMs`: a byte came, or the last one of a request leaves then. */
  brokenAt(atMs: number): void {
    this.#lastActivityMs = atMs;
  }

  /**
   * Waits out the drain, the gap and t3.5, but for the last part where t3.5 decides: that is left to {@link rest}. Ends early when
   * the line is closed.
   * @param gapMs where t3.5 is longer, that
   * @param readyAtMs nothing may be sent before this, as it stands at the moment of asking (LineProtocol.readyAtMs)
   * @throws DriverError crc-error when bytes come without end
   */
  async wait(gapMs: number, readyAtMs: () => number): Promise<void> {
    const { description, frameGapMs, nowMs, closing } = this.#options;
    const gap = Math.max(gapMs, frameGapMs);
    // A longer gap may be a millisecond longer still: nobody is then asked as fast as the line allows.
    const holdMs = gapMs <= frameGapMs ? holdMaxMs : 0;
    const quietAtMs = (): number => Math.max(readyAtMs(), this.#lastActivityMs + gap);
    this.#quietAtMs = quietAtMs;
    // Only bytes that keep coming can move the moment on: a second master, or a driver that is stuck.
    const giveUpAtMs = Math.max(nowMs(), quietAtMs()) + noiseMaxMs;
    while (!closing.aborted) {
      const restMs = quietAtMs() - nowMs();
      if (restMs <= holdMs) return;
      if (nowMs() > giveUpAtMs) throw neverQuietError(description);
      await this.#pause(holdMs === 0 ? restMs : Math.floor(restMs - timerLateMs));
    }
  }

  /**
   * The rest of the wait, for which the thread is held: to be called when all that is left to do is to write. It is asked for
   * in one piece: the thread goes on about 0.1 ms late, and a second wait to save that would cost a second wake-up.
   */
  rest(): void {
    for (;;) {
      const restMs = this.#quietAtMs() - this.#options.nowMs();
      if (restMs <= 0) return;
      Atomics.wait(never, 0, 0, restMs);
    }
  }

  #pause(durationMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(done, Math.max(1, durationMs));
      this.#endPause = done;
    });
  }
}
