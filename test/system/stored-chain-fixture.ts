/** What a full node has stored, read from its database past its own code, and whether it is one whole chain. */
import assert from "node:assert/strict";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { verifyCose } from "../../protocol/cose-sign1.ts";
import { equalBytes } from "../../protocol/deterministic-cbor.ts";
import { type DecodedRecord, decodeRecord, eventCodes, noPrevious, previousBytes } from "../../protocol/record.ts";
import { nodeVerify, sha256 } from "../vectors/signature-suite.ts";

export interface StoredRecord {
  readonly sequence: number;
  readonly bytes: Uint8Array;
  readonly record: DecodedRecord;
}

export interface StoredRow {
  readonly meter: number;
  readonly timeS: number;
  readonly status: number;
  readonly sequence: number;
}

function query(nodeFolder: string, sql: string): Record<string, unknown>[] {
  const database = new DatabaseSync(path.join(nodeFolder, "node.db"), { readOnly: true });
  try {
    return database.prepare(sql).all();
  } finally {
    database.close();
  }
}

/** All records, in the order of their sequence. */
export function storedRecords(nodeFolder: string): StoredRecord[] {
  return query(nodeFolder, "SELECT sequence, bytes FROM records ORDER BY epoch, sequence").map((row) => {
    const bytes = row.bytes as Uint8Array;
    return { sequence: row.sequence as number, bytes, record: decodeRecord(bytes, sha256) };
  });
}

/** The rows of all meters that the stored records hold. */
export function storedRows(nodeFolder: string): StoredRow[] {
  return storedRecords(nodeFolder).flatMap(({ sequence, record: { content } }) =>
    content.kind === "reading"
      ? content.rows.map(({ timeS, status }) => ({ meter: content.meter, timeS, status, sequence }))
      : [],
  );
}

/** Number of records that contradict the chain, or of a device that nobody enrolled. */
export function storedConflicts(nodeFolder: string): number {
  const [row] = query(nodeFolder, "SELECT (SELECT count(*) FROM evidence) + (SELECT count(*) FROM quarantine) AS n");
  return row?.n as number;
}

/**
 * One device, one epoch, sequences from 1 on without a gap that no void names, no sequence twice, each record signed by the
 * device and naming its predecessor's digest, no slot of a meter twice. Returns the last sequence.
 */
export function assertWholeChain(records: readonly StoredRecord[], publicKey: Uint8Array): number {
  assert.ok(records.length > 0, "there are records");
  let last = 0;
  let previous: Uint8Array = noPrevious;
  const slots = new Set<string>();
  for (const { sequence, record } of records) {
    const { content, cose, digest } = record;
    assert.equal(content.sequence, sequence, "the database's sequence is the record's own");
    assert.equal(content.epoch, records[0]?.record.content.epoch);
    verifyCose(cose, publicKey, nodeVerify);
    const voids = content.kind === "event" ? content.events.filter(([code]) => code === eventCodes.void) : [];
    const expected = voids.some(([, first, end]) => first === last + 1 && end === sequence - 1) ? sequence : last + 1;
    assert.equal(sequence, expected, `after ${last} comes ${last + 1}`);
    assert.ok(equalBytes(content.previous, previous), `record ${sequence} names the digest of the one before it`);
    for (const { timeS } of content.kind === "reading" ? content.rows : []) {
      const slot = `${content.kind === "reading" ? content.meter : ""} ${content.generation} ${timeS}`;
      assert.ok(!slots.has(slot), `the slot ${slot} was sealed once`);
      slots.add(slot);
    }
    last = sequence;
    previous = digest.subarray(0, previousBytes);
  }
  return last;
}
