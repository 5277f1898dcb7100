/** The rests of the LoRaWAN uplink's loop, on a clock that is given: a virtual day takes seconds. */
import type { LoraTiming } from "../drivers/lora/modem.ts";

export class LoraRest {
  readonly #timing: LoraTiming;
  #end: AbortController | undefined;
  #hasNews = false;
  #interruptions = 0;
  #isOver = false;

  constructor(timing: LoraTiming) {
    this.#timing = timing;
  }

  /** There is something new: ends a rest that is for news, this one or the next. */
  wake(): void {
    this.#hasNews = true;
    this.#end?.abort();
  }

  /** Ends the rest that is on, whatever it is for. */
  interrupt(): void {
    this.#interruptions++;
    this.#end?.abort();
  }

  /** The loop is to end: no rest from now on. */
  end(): void {
    this.#isOver = true;
    this.#end?.abort();
  }

  /** The loop looks at everything now: what is new until here is seen. */
  looks(): void {
    this.#hasNews = false;
  }

  async rest(ms: number, forNews: boolean): Promise<void> {
    const { clock, pause } = this.#timing;
    const untilMs = clock.monotonicMs() + ms;
    const interruptions = this.#interruptions;
    while (!this.#isOver && this.#interruptions === interruptions && !(forNews && this.#hasNews)) {
      const restMs = untilMs - clock.monotonicMs();
      if (restMs <= 0) return;
      this.#end = new AbortController();
      // Whole milliseconds: a fraction that a sum of fractions leaves over could be less than what a clock can tell.
      await pause(Math.ceil(restMs), this.#end.signal);
      this.#end = undefined;
    }
  }
}
