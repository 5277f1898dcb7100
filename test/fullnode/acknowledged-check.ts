/** Compares what receipts promised with what a store holds: the check that a full node stands or falls by. */
import { DatabaseSync } from "node:sqlite";
import type { Receipt } from "../../protocol/receipt.ts";

/** Sequences that some receipt names as stored and the database does not hold, neither as a record nor within a void. */
export function promisedButMissing(receipts: readonly Receipt[], databaseFile: string): number[] {
  const database = new DatabaseSync(databaseFile, { readOnly: true });
  try {
    const missing = new Set<number>();
    const held = new Map<number, Set<number>>();
    for (const { epoch, through, ranges } of receipts) {
      let stored = held.get(epoch);
      if (stored === undefined) {
        const rows = database.prepare("SELECT sequence FROM records WHERE epoch = ?").all(epoch);
        stored = new Set(rows.map(({ sequence }) => sequence as number));
        for (const { first, last } of database.prepare("SELECT first, last FROM voids WHERE epoch = ?").all(epoch))
          for (let voided = first as number; voided <= (last as number); voided++) stored.add(voided);
        held.set(epoch, stored);
      }
      for (const { first, last } of [{ first: 1, last: through }, ...ranges])
        for (let sequence = first; sequence <= last; sequence++) if (!stored.has(sequence)) missing.add(sequence);
    }
    return [...missing];
  } finally {
    database.close();
  }
}
