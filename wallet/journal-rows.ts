/** What the journal remembers of rows: those pending, the newest of each meter and plan, and the latest few for an agent's second try. */
import { quantityOfCode } from "../protocol/quantity.ts";
import { clockStates, statuses } from "../protocol/reading-status.ts";
import type { ReadingContent, Row } from "../protocol/record.ts";
import type { LastRow, PendingRow, RegisterStand } from "./journal-body.ts";
import type { Place } from "./journal-epochs.ts";
import { RecentRows } from "./journal-recent-rows.ts";

/** A row that the journal has: its values, and epoch and sequence of its record (both 0 while it is pending). */
export interface KnownRow {
  readonly generation: number;
  readonly clockState: number;
  readonly row: Row;
  readonly codes: readonly number[];
  readonly epoch: number;
  readonly sequence: number;
}

type RowOrigin = Pick<ReadingContent, "meter" | "plan" | "codes" | "clockState">;

export class JournalRows {
  #pending: { commit: number; pending: PendingRow }[] = [];
  readonly #last = new Map<string, LastRow>();
  readonly #recent = new Map<string, RecentRows>();

  /** Rows not yet part of a record, oldest first. */
  get pending(): readonly PendingRow[] {
    return this.#pending.map((item) => item.pending);
  }
  /** Number of the commit with the oldest of them. */
  get oldestPendingCommit(): number | undefined {
    return this.#pending[0]?.commit;
  }
  get lastRows(): readonly LastRow[] {
    return [...this.#last.values()];
  }
  last(meter: number, plan: number): LastRow | undefined {
    return this.#last.get(`${meter}/${plan}`);
  }

  /** Rows of this time in memory, newest first: all that are pending, and the latest of those in records. */
  near(meter: number, plan: number, timeS: number): KnownRow[] {
    const recent = this.#recent.get(`${meter}/${plan}`)?.at(timeS) ?? [];
    const pending = this.#pending
      .filter(({ pending: item }) => item.meter === meter && item.plan === plan && item.row.timeS === timeS)
      .map(({ pending: { generation, clockState, row, codes } }) => ({
        ...{ generation, clockState, row, codes },
        ...{ epoch: 0, sequence: 0 },
      }));
    return [...recent, ...pending].reverse();
  }

  setLastRows(lastRows: readonly LastRow[]): void {
    this.#last.clear();
    for (const last of lastRows) this.#last.set(`${last.meter}/${last.plan}`, last);
  }

  addRecord(content: ReadingContent): void {
    this.#pending = this.#pending.filter(({ pending }) => !isRowOf(pending, content));
    for (const row of content.rows) this.#remember(content, content.generation, row, content);
  }

  addPending(pending: PendingRow, commit: number): void {
    this.#pending.push({ commit, pending });
    this.#remember(pending, pending.generation, pending.row, { epoch: 0, sequence: 0 });
  }

  #remember(of: RowOrigin, generation: number, row: Row, { epoch, sequence }: Place): void {
    const key = `${of.meter}/${of.plan}`;
    let recent = this.#recent.get(key);
    // A plan's codes change with its meter's profile only: rows of before are then found in the ring.
    if (!recent?.isOf(of.codes)) {
      recent = new RecentRows(of.codes);
      this.#recent.set(key, recent);
    }
    recent.add(row, { generation, clockState: of.clockState, epoch, sequence });
    this.#advance(key, of, generation, row);
  }

  /** Another meter hangs in this place: what the one before showed says nothing of it. */
  forgetStands(meter: number): void {
    for (const [key, last] of this.#last) if (last.meter === meter) this.#last.set(key, { ...last, registers: [] });
  }

  #advance(key: string, of: RowOrigin, generation: number, row: Row): void {
    const last = this.#last.get(key);
    const latestS = Math.max(last?.latestS ?? 0, row.timeS);
    if (row.status !== statuses.good || of.clockState === clockStates.relative) {
      // A row that is not good, or of no clock's time, moves neither time nor stands: its time is only the agent's word. That it exists
      // must be known all the same.
      const none = { meter: of.meter, plan: of.plan, generation, timeS: 0, registers: [] };
      this.#last.set(key, { ...(last ?? none), latestS });
      return;
    }
    if (last && (last.generation > generation || (last.generation === generation && last.timeS >= row.timeS))) {
      if (latestS > last.latestS) this.#last.set(key, { ...last, latestS });
      return;
    }
    const registers = standsOf(of, row, last?.registers ?? []);
    this.#last.set(key, { meter: of.meter, plan: of.plan, generation, timeS: row.timeS, latestS, registers });
  }
}

/** The stands after a good row: its own, and those of before of the registers that it does not have. */
function standsOf({ codes }: RowOrigin, row: Row, before: readonly RegisterStand[]): RegisterStand[] {
  const own = codes
    .map((code, index): RegisterStand => [code, row.values[index] as number, row.timeS])
    .filter(([code]) => quantityOfCode(code)?.cumulative === true);
  return [...own, ...before.filter(([code]) => !codes.includes(code))].sort(([a], [b]) => a - b);
}

function isRowOf(pending: PendingRow, content: ReadingContent): boolean {
  return (
    pending.meter === content.meter &&
    pending.plan === content.plan &&
    pending.generation === content.generation &&
    content.rows.some((row) => row.timeS === pending.row.timeS)
  );
}
