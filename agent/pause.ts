/** Waiting that can be cut short. */

/** A pause that an abort ends early; resolves either way. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

/** A loop's rest: ends after a while, or at once when there is news. News that came while nobody rested is not lost. */
export class Rest {
  #news = false;
  #end: () => void = () => undefined;

  wake(): void {
    this.#news = true;
    this.#end();
  }

  /** Resolves at the next wake(), at once where there was one since the last rest, after `ms`, or on abort. */
  async rest(ms: number, signal: AbortSignal): Promise<void> {
    if (!this.#news && !signal.aborted)
      await new Promise<void>((resolve) => {
        const done = (): void => {
          clearTimeout(timer);
          signal.removeEventListener("abort", done);
          resolve();
        };
        const timer = setTimeout(done, ms);
        signal.addEventListener("abort", done);
        this.#end = done;
      });
    this.#end = () => undefined;
    this.#news = false;
  }
}
