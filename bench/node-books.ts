/** What a full node has stored and booked, read from its database past its own code. */
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { unpackValues } from "../fullnode/row-packing.ts";
import { hasValues, statuses } from "../protocol/reading-status.ts";
import { decodeRecord } from "../protocol/record.ts";
import { sha256 } from "../test/vectors/signature-suite.ts";
import type { SealedRecord } from "./card-hub.ts";

export interface BookedRow {
  readonly key: string;
  readonly epoch: number;
  readonly sequence: number;
  /** All columns. */
  readonly text: string;
  /** Codes and values in turn, as JSON. */
  readonly content: string;
}

export interface KeptRecord {
  readonly epoch: number;
  readonly sequence: number;
  readonly digest: string;
  readonly bytes: Uint8Array;
}

export class NodeBooks {
  readonly #folder: string;

  constructor(nodeFolder: string) {
    this.#folder = nodeFolder;
  }

  query(sql: string): Record<string, unknown>[] {
    const database = new DatabaseSync(path.join(this.#folder, "node.db"), { readOnly: true });
    try {
      return database.prepare(sql).all();
    } finally {
      database.close();
    }
  }

  /** By counting key. */
  booked(): Map<string, BookedRow> {
    const rows = this.query("SELECT * FROM rows WHERE booked = 1").map((row) => {
      const key = `${row.meter}/${row.generation}/${row.time_s}`;
      const content = JSON.stringify(unpackValues(row.content as Uint8Array));
      return { key, epoch: row.epoch as number, sequence: row.sequence as number, text: JSON.stringify(row), content };
    });
    return new Map(rows.map((row) => [row.key, row]));
  }

  heldEpochs(): number[] {
    return this.query("SELECT epoch FROM epochs WHERE held = 1").map(({ epoch }) => epoch as number);
  }

  /** The records in the chains. */
  records(settledOnly = false): KeptRecord[] {
    return this.#kept(`SELECT * FROM records ${settledOnly ? "WHERE settled = 1" : ""} ORDER BY epoch, sequence`);
  }

  /** In the order in which they became evidence. */
  evidence(): KeptRecord[] {
    return this.#kept("SELECT * FROM evidence ORDER BY id");
  }

  #kept(sql: string): KeptRecord[] {
    return this.query(sql).map((row) => ({
      epoch: row.epoch as number,
      sequence: row.sequence as number,
      digest: Buffer.from(row.digest as Uint8Array).toString("hex"),
      bytes: row.bytes as Uint8Array,
    }));
  }

  /** How many of these are neither in a chain nor evidence, byte for byte. */
  lostOf(records: Iterable<SealedRecord>): number {
    const there = new Map([...this.records(), ...this.evidence()].map(({ digest, bytes }) => [digest, bytes]));
    let lost = 0;
    for (const { digest, bytes } of records)
      if (!Buffer.from(bytes).equals(there.get(digest) ?? new Uint8Array())) lost++;
    return lost;
  }

  /**
   * What is wrong with what is booked: rows that no settled record of an epoch that is not held holds so, and keys that such records
   * hold and that are not booked.
   */
  wronglyBooked(): number {
    const held = new Set(this.heldEpochs());
    const said = new Map<string, Set<string>>();
    for (const { epoch, sequence, bytes } of this.records(true))
      for (const { key, content } of held.has(epoch) ? [] : countedRows(bytes))
        said.set(key, (said.get(key) ?? new Set()).add(`${epoch}/${sequence}/${content}`));
    const booked = this.booked();
    let wrong = 0;
    for (const [key, { epoch, sequence, content }] of booked)
      if (!said.get(key)?.has(`${epoch}/${sequence}/${content}`)) wrong++;
    for (const key of said.keys()) if (!booked.has(key)) wrong++;
    return wrong;
  }
}

/** The rows of a record that count where it is settled: counting key, and values as the node's table holds them. */
export function countedRows(bytes: Uint8Array): { key: string; content: string }[] {
  const { content } = decodeRecord(bytes, sha256);
  if (content.kind === "event") return [];
  const { meter, generation, codes, rows } = content;
  return rows
    .filter(({ status }) => hasValues(status) && status !== statuses.manipulated && status !== statuses.outOfRange)
    .map(({ timeS, values }) => ({
      key: `${meter}/${generation}/${timeS}`,
      content: JSON.stringify(values.flatMap((value, i) => [codes[i] as number, value])),
    }));
}

/** How many rows of before are not there any more, or not as they were. */
export function changedRows(before: ReadonlyMap<string, BookedRow>, after: ReadonlyMap<string, BookedRow>): number {
  return [...before].filter(([key, { text }]) => after.get(key)?.text !== text).length;
}
