/** Brings what the tables of version 2 held into those of version 3: rows packed, quarter hours, exchanged meters. */
import type { DatabaseSync } from "node:sqlite";
import { decodeCose } from "../protocol/cose-sign1.ts";
import { decodeRecordPayload } from "../protocol/record.ts";
import { addRow, emptySummary, type GrowingSummary, quarterEndS } from "./aggregate.ts";
import { exchangesOf } from "./chain-events.ts";
import { packSummary, packValues, unpackValues } from "./row-packing.ts";
import type { RowKey } from "./store-reading.ts";

export function moveRowsOfVersionTwo(database: DatabaseSync): void {
  database.function("pack_values", (content) => packValues(JSON.parse(content as string) as number[]));
  database.exec(`
    INSERT INTO packed_rows SELECT device, meter, generation, time_s, slot_s, status, booked, epoch, sequence, pack_values(content)
      FROM rows ORDER BY device, meter, generation, time_s;
    DROP TABLE rows;
    ALTER TABLE packed_rows RENAME TO rows;
  `);
  makeSlots(database);
  findExchanges(database);
}

/** Rows come in the order of the quarter hours, so one summary at a time is enough. */
function makeSlots(database: DatabaseSync): void {
  const insert = database.prepare("INSERT INTO slots VALUES (?, ?, ?, ?, 0, ?)");
  let open: { readonly key: readonly number[]; readonly endS: number; readonly summary: GrowingSummary } | undefined;
  const close = (): void => {
    if (open) insert.run(...open.key, open.endS, packSummary(open.summary, open.endS));
    open = undefined;
  };
  const rows = database.prepare(
    `SELECT device, meter, generation, time_s AS timeS, content FROM rows WHERE booked = 1
     ORDER BY device, meter, generation, time_s`,
  );
  for (const row of rows.iterate()) {
    const { device, meter, generation, timeS } = row as unknown as RowKey & { device: number };
    const key = [device, meter, generation];
    const endS = quarterEndS(timeS);
    if (open && (open.endS !== endS || open.key.some((part, i) => part !== key[i]))) close();
    open ??= { key, endS, summary: emptySummary() };
    addRow(open.summary, timeS, unpackValues(row.content as Uint8Array));
  }
  close();
}

function findExchanges(database: DatabaseSync): void {
  const insert = database.prepare("INSERT OR IGNORE INTO exchanges VALUES (?, ?, ?, ?, ?, ?, ?)");
  for (const row of database.prepare("SELECT device, bytes FROM records WHERE settled = 1").iterate()) {
    const content = decodeRecordPayload(decodeCose(row.bytes as Uint8Array).payload);
    if (content.kind !== "event") continue;
    for (const { epoch, sequence, meter, generation, timeS, installation } of exchangesOf(content))
      insert.run(row.device as number, meter, generation, timeS, epoch, sequence, installation);
  }
}
