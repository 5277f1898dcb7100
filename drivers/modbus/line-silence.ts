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
   * @param readyAtMs nothing may be sent before this, as it stands at the moment of asking (LineProtocol.readyAtMs)
   * @throws DriverError crc-error when bytes come without end
   */
  async wait(gapMs: number, readyAtMs: () => number): Promise<void> {
    const { description, frameGapMs, nowMs, closing } = this.#options;
    const gap = Math.max(gapMs, frameGapMs);
    const quietAtMs = (): number => Math.max(readyAtMs(), this.#lastActivityMs + gap);
    // Only bytes that keep coming can move the moment on: a second master, or a driver that is stuck.
    const giveUpAtMs = Math.max(nowMs(), quietAtMs()) + noiseMaxMs;
    while (!closing.aborted) {
      const restMs = quietAtMs() - nowMs();
      if (restMs <= 0) return;
      if (nowMs() > giveUpAtMs) throw neverQuietError(description);
      await this.#pause(restMs);
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
