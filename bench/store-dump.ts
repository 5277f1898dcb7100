/** What an embedded store holds, line by line and sorted, without what tells of the arrival itself: for comparing two of them. */
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** Columns that tell when, or in which order, something came. */
const queries = [
  "SELECT name, hex(public_key), hex(current_key), hex(request_digest) FROM devices ORDER BY name",
  `SELECT d.name, e.epoch, held, decision, hex(e.public_key), through, hex(through_digest), settled_through, ended,
     parent_epoch, parent_sequence FROM epochs e JOIN devices d ON d.id = e.device ORDER BY d.name, e.epoch`,
  "SELECT d.name, s.epoch, first, last, hex(digest) FROM spans s JOIN devices d ON d.id = s.device ORDER BY 1, 2, 3",
  `SELECT d.name, r.epoch, sequence, predecessor, hex(digest), hex(previous), settled, hex(bytes)
   FROM records r JOIN devices d ON d.id = r.device ORDER BY d.name, r.epoch, sequence`,
  "SELECT d.name, v.epoch, first, last FROM voids v JOIN devices d ON d.id = v.device ORDER BY 1, 2, 3, 4",
  `SELECT d.name, x.epoch, first, last, by_epoch, by_sequence FROM drops x JOIN devices d ON d.id = x.device
   ORDER BY 1, 2, 3, 4, 5, 6`,
  `SELECT d.name, meter, generation, time_s, slot_s, status, booked, r.epoch, sequence, content
   FROM rows r JOIN devices d ON d.id = r.device ORDER BY d.name, meter, generation, time_s`,
  `SELECT d.name, e.epoch, sequence, hex(digest), reason FROM evidence e JOIN devices d ON d.id = e.device
   ORDER BY 1, 2, 3, 4`,
  "SELECT name, hex(digest) FROM quarantine ORDER BY 1, 2",
  "SELECT hex(digest) FROM ledger_queue ORDER BY 1",
] as const;

export function* storeDump(data: string): Generator<string> {
  const database = new DatabaseSync(join(data, "node.db"), { readOnly: true });
  try {
    for (const query of queries)
      for (const row of database.prepare(query).iterate()) yield JSON.stringify(Object.values(row));
  } finally {
    database.close();
  }
}
