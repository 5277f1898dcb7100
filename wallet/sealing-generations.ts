/**
 * Clock generations: a step of the clock begins one, so that a time that comes twice is not taken for the same. Rows that were
 * read before the clock was set belong to the generation of their boot. The agent has no say in any of it.
 */
import type { Clock } from "../platform/clock.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { clockStates, statuses } from "../protocol/reading-status.ts";
import { eventCodes, type Row } from "../protocol/record.ts";
import type { SealRequest } from "../protocol/wallet-message.ts";
import type { Journal } from "./journal.ts";
import type { LastRow } from "./journal-body.ts";
import type { KnownRow } from "./journal-rows.ts";
import type { NewContent, SealingChain } from "./sealing-chain.ts";

/**
 * How far a row's time may lie ahead of the wallet's clock, and the clock behind a sealed row, before either counts. The two
 * must be the same: else a row from the near future would make the clock look set back.
 */
const clockToleranceS = 2;

export interface SealingGenerationsOptions {
  readonly journal: Journal;
  readonly clock: Clock;
  readonly bootId: Uint8Array;
  readonly chain: SealingChain;
}

export class SealingGenerations {
  readonly #options: SealingGenerationsOptions;
  /** Seconds that the clock was set forth since a generation began; undefined where it was not set. */
  #stepS: number | undefined;
  /** Newest relative time of a meter and plan, where this process knows of all rows of this boot. */
  readonly #newestRelativeS: Map<string, number> | undefined;

  constructor(options: SealingGenerationsOptions) {
    this.#options = options;
    this.#newestRelativeS = this.#boot === undefined ? new Map() : undefined;
  }

  /** The generation of rows that were read in this boot before its clock was set. */
  get #boot(): number | undefined {
    const { journal, bootId } = this.#options;
    const { relative } = journal;
    return relative && equalBytes(relative.bootId, bootId) ? relative.generation : undefined;
  }

  /** The running generation, where it is one of clock time. */
  get #wall(): number | undefined {
    const { journal } = this.#options;
    return journal.relative?.generation === journal.generation ? undefined : journal.generation;
  }

  /** The clock was set forth by so many seconds, or back. */
  stepped(stepS: number): void {
    this.#stepS = (this.#stepS ?? 0) + stepS;
  }

  /** Seals a step that is not sealed yet: what was pending before, then the event. Throws WalletRefusal `ring-full`. */
  sealStep(): void {
    if (this.#stepS === undefined) return;
    this.#options.chain.append(this.#next(this.#stepS));
    this.#stepS = undefined;
  }

  #next(stepS: number, ...bootId: Uint8Array[]): NewContent[] {
    const { journal, chain } = this.#options;
    const { generation } = journal;
    const event = [eventCodes.clockStepped, generation, generation + 1, stepS, ...bootId] as const;
    return [...chain.closePending(), { kind: "event", events: [event] }];
  }

  /** The generation in which a row of this request is looked for; undefined where none has begun that it could be of. */
  of({ relative }: SealRequest): number | undefined {
    return relative ? this.#boot : this.#wall;
  }

  /** Whether a sealed row can be the same as one of the request. */
  isOf({ relative }: SealRequest, known: KnownRow): boolean {
    return relative ? known.generation === this.#boot : known.clockState !== clockStates.relative;
  }

  /** Whether a row is newer than all of this boot, so that it need not be looked for. */
  isNew({ meter, plan, relative }: SealRequest, row: Row): boolean {
    if (!relative) return false;
    if (this.#boot === undefined) return true;
    const newestS = this.#newestRelativeS && (this.#newestRelativeS.get(`${meter}/${plan}`) ?? 0);
    return newestS !== undefined && row.timeS > newestS;
  }

  /** The generation that fresh rows of a request belong to, and what must be sealed before them where it begins with them. */
  begin(request: SealRequest, first: Row): { generation: number; contents: readonly NewContent[] } {
    const { journal, bootId } = this.#options;
    const next = journal.generation + 1;
    const running = this.of(request);
    if (running === undefined)
      return { generation: next, contents: request.relative ? this.#next(0, bootId) : this.#next(0) };
    if (!this.standsBefore(request)) return { generation: running, contents: [] };
    // The clock was set back while the wallet was off. What was sealed stays as it is; what comes now has its own generation.
    const last = journal.lastRow(request.meter, request.plan)?.timeS ?? 0;
    return { generation: next, contents: this.#next(first.timeS - last) };
  }

  /** Whether the wallet's own clock stands before what is sealed of this meter already. */
  standsBefore({ meter, plan, slotS, relative }: SealRequest): boolean {
    const last = this.#options.journal.lastRow(meter, plan);
    if (relative || last === undefined || last.generation !== this.#wall) return false;
    return this.#isAhead(last, slotS);
  }

  /** Whether a row's time lies ahead of the wallet's own clock. */
  #isAhead({ timeS }: LastRow, slotS: number): boolean {
    return this.#options.clock.wallMs() / 1_000 < timeS - slotS - clockToleranceS;
  }

  /**
   * Whether a generation's rows must come after this one. One that began because relative rows came between is the agent's
   * doing: nobody set the clock, and no time may come twice in it, unless the clock was set back while the wallet was off.
   */
  #isAfter(last: LastRow, generation: number, slotS: number): boolean {
    if (last.generation === generation) return true;
    const boot = this.#options.journal.relative?.generation ?? generation;
    return boot === generation - 1 && last.generation < boot && !this.#isAhead(last, slotS);
  }

  /** Late by the wallet's own clock, or from the future: sealed, since no reading is thrown away, and marked, not booked. */
  marked({ meter, plan, slotS, relative }: SealRequest, generation: number, rows: readonly Row[]): Row[] {
    const { journal, clock } = this.#options;
    const last = journal.lastRow(meter, plan);
    const soonestS = !relative && last !== undefined && this.#isAfter(last, generation, slotS) ? last.timeS : 0;
    const nowMs = relative ? clock.monotonicMs() : clock.wallMs();
    const latestS = nowMs / 1_000 + slotS + clockToleranceS;
    const isTimely = ({ timeS }: Row): boolean => timeS > soonestS && timeS <= latestS;
    return rows.map((row) =>
      isTimely(row) || row.status !== statuses.good ? row : { ...row, status: statuses.manipulated },
    );
  }

  /** Rows of a request were sealed. */
  sealed({ meter, plan, relative }: SealRequest, rows: readonly Row[]): void {
    if (!relative || !this.#newestRelativeS) return;
    const key = `${meter}/${plan}`;
    this.#newestRelativeS.set(key, Math.max(this.#newestRelativeS.get(key) ?? 0, rows.at(-1)?.timeS ?? 0));
  }
}
