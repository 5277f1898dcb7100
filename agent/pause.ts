/** Waiting that can be cut short. */

/** What waits for each signal's abort. */
const waitingFor = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls `done` at the abort, until the function that it gives is called. One listener serves all of a signal: to add and remove one for
 * each wait was a tenth of what a reading costs the agent.
 */
function onAbort(signal: AbortSignal, done: () => void): () => void {
  let waiting = waitingFor.get(signal);
  if (waiting === undefined) {
    const all = new Set<() => void>();
    signal.addEventListener("abort", () => {
      for (const end of [...all]) end();
    });
    waitingFor.set(signal, all);
    waiting = all;
  }
  const those = waiting;
  those.add(done);
  return () => those.delete(done);
}

/** A pause that an abort ends early; resolves either way. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      release();
      resolve();
    };
    const timer = setTimeout(done, ms);
    const release = onAbort(signal, done);
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
          release();
          resolve();
        };
        const timer = setTimeout(done, ms);
        const release = onAbort(signal, done);
        this.#end = done;
      });
    this.#end = () => undefined;
    this.#news = false;
  }
}
