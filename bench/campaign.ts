/**
 * What campaigns and benchmarks have in common: `--seed` and `--short`, endings that run whatever happens, and the one JSON line that
 * they end with. Progress goes to stderr.
 */
import { parseArgs } from "node:util";
import { SeededRandom } from "../test/protocol/seeded-random.ts";

export interface Outcome {
  readonly figures: Readonly<Record<string, number | string | boolean>>;
  /** The same without the protection, or with a peer in its place: it shows that the check can fail. */
  readonly control: Readonly<Record<string, number | string | boolean>>;
  readonly holds: boolean;
}

export class Campaign {
  readonly name: string;
  readonly short: boolean;
  readonly random: SeededRandom;
  readonly #endings: (() => unknown)[] = [];
  #saidMs = 0;

  constructor(name: string, argv: readonly string[]) {
    const { values } = parseArgs({
      args: [...argv],
      options: { seed: { type: "string" }, short: { type: "boolean", default: false } },
      strict: true,
    });
    const seed = values.seed === undefined ? Date.now() % 2 ** 32 : Number(values.seed);
    if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32)
      throw new RangeError(`--seed ${values.seed}: an integer from 0 to ${2 ** 32 - 1} was expected`);
    this.name = name;
    this.short = values.short;
    this.random = new SeededRandom(seed);
    this.say(`seed ${seed}${this.short ? ", short" : ""}`);
  }

  /** The smaller number in a short run. */
  count(long: number, short: number): number {
    return this.short ? short : long;
  }

  say(text: string): void {
    process.stderr.write(`${this.name}: ${text}\n`);
  }

  /** The same, at most every ten seconds. */
  progress(done: number, of: number, more = ""): void {
    if (performance.now() - this.#saidMs < 10_000) return;
    this.#saidMs = performance.now();
    this.say(`${done} of ${of}${more && `, ${more}`}`);
  }

  /** Runs at the end, the last one given first, whatever the end is. */
  after(ending: () => unknown): void {
    this.#endings.push(ending);
  }

  async end(): Promise<void> {
    for (let ending = this.#endings.pop(); ending !== undefined; ending = this.#endings.pop()) {
      try {
        await ending();
      } catch (error) {
        this.say(`while ending: ${(error as Error).message}`);
      }
    }
  }
}

/** Runs a campaign and prints its line. Exit code 0: it holds; 1: it does not; 64: wrong usage; 69: the machine lacks what it needs. */
export async function runCampaign(name: string, body: (campaign: Campaign) => Promise<Outcome>): Promise<void> {
  let campaign: Campaign;
  try {
    campaign = new Campaign(name, process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${name}: ${(error as Error).message}\n`);
    process.exitCode = 64;
    return;
  }
  let broken: Promise<never> | undefined;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    // That of running-program-fixture.ts would end this process before its folders are gone.
    process.removeAllListeners(signal);
    process.once(signal, () => {
      broken ??= campaign.end().then(() => process.exit(1));
    });
  }
  try {
    const outcome = await body(campaign);
    const line = { name, seed: campaign.random.seed, ...outcome };
    await campaign.end();
    process.stdout.write(`${JSON.stringify(line)}\n`);
    process.exitCode = outcome.holds ? 0 : 1;
  } catch (error) {
    await broken; // what it used was taken from under it
    await campaign.end();
    if (!(error instanceof Missing)) throw error;
    process.stderr.write(`${name}: ${error.message}\n`);
    process.exitCode = 69;
  }
}

/** This machine lacks what a campaign needs. */
export class Missing extends Error {}
