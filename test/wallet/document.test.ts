// wallet/README.md against the code.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { type CborValue, decodeCbor, encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { helloFields, walletProtocolVersion } from "../../protocol/wallet-hello.ts";
import {
  decodeWalletRequest,
  readBytesMax,
  sealRowsMax,
  WalletRefusal,
  walletMessageBytesMax,
  walletRefusals,
  walletRequestNames,
} from "../../protocol/wallet-message.ts";
import {
  blockBytes,
  commitBlocksMax,
  encodeCommit,
  fillerBlock,
  firstCommitBlocksMax,
} from "../../wallet/journal-block.ts";
import { commitRecordsMax, decodeBody, encodeBody, type JournalState, plansMax } from "../../wallet/journal-body.ts";
import { epochsMax } from "../../wallet/journal-epochs.ts";
import { segmentBlocksDefault, segmentsMax, segmentsMin } from "../../wallet/journal-ring.ts";
import { pinnedNodesMax } from "../../wallet/policy.ts";
import { walletConnectionsMax } from "../../wallet/server.ts";
import { WalletFixture } from "./wallet-fixture.ts";

const text = readFileSync(path.resolve(import.meta.dirname, "../../wallet/README.md"), "utf8");
const flat = text.replace(/\s+/g, " ");

/** The cells of the rows of the table with this header. */
function table(header: string): string[][] {
  const lines = text.split("\n");
  const start = lines.findIndex((line) => line.startsWith(header));
  assert.ok(start >= 0, `a table ${header}`);
  const end = lines.findIndex((line, i) => i > start && !line.startsWith("|"));
  return lines
    .slice(start + 2, end)
    .map((line) => line.split(" | ").map((cell) => cell.replace(/^\|\s*|\s*\|$/g, "").trim()));
}

/** The numbers of the fields that a cell lists: "1 meter · 2 plan". */
function fieldsIn(cell: string): number[] {
  return cell === "none" ? [] : cell.split(" · ").map((field) => Number.parseInt(field, 10));
}

test("the requests, their numbers and fields are those of the code", (t) => {
  const rows = table("| type | request |");
  assert.deepEqual(
    rows.map(([, name]) => name?.replaceAll("`", "")),
    walletRequestNames,
  );
  for (const [type, name, fields] of rows) {
    const listed = fieldsIn(fields as string);
    const reasonFor = (field: number): string => {
      const { request } = decodeWalletRequest(encodeCbor([Number(type), 1, new Map<number, CborValue>([[field, 0]])]));
      return request instanceof WalletRefusal ? request.reason : "taken";
    };
    for (let field = 0; field <= 8; field++)
      assert.equal(reasonFor(field) !== "unknown-field", listed.includes(field), `${name}, field ${field}`);
  }
  const hello = helloFields(new WalletFixture(t).hello());
  assert.deepEqual(fieldsIn(rows[0]?.[3] as string), [...hello.keys()]);
  assert.equal(hello.get(1), walletProtocolVersion);
});

test("the refusals are those of the code, word by word", () => {
  const rows = table("| reason | meaning |").map(([reason, meaning]) => [reason?.replaceAll("`", ""), meaning]);
  assert.deepEqual(Object.fromEntries(rows), walletRefusals);
});

test("the numbers in the text are those of the code", () => {
  const grouped = (value: number): string => value.toLocaleString("en-US");
  for (const phrase of [
    `a message of at most ${grouped(walletMessageBytesMax)} bytes`,
    `1 to ${sealRowsMax}, one slot apart`,
    `at most ${grouped(readBytesMax)} bytes of them`,
    `plan (0 to ${plansMax - 1})`,
    `Segments of ${segmentBlocksDefault} blocks of ${grouped(blockBytes)} bytes, ${segmentsMin} to ${grouped(segmentsMax)} of them`,
    `whole blocks, at most ${commitBlocksMax}, or at most ${firstCommitBlocksMax} at the beginning of a segment`,
    `the COSE_Sign1 bytes, at most ${commitRecordsMax}`,
    `For each such block ${commitRecordsMax} sequences`,
    `at most ${pinnedNodesMax} · 4 seal_every`,
    `A meter may send ${2 * sealRowsMax} rows at once`,
  ])
    assert.ok(flat.includes(phrase), phrase);
  assert.equal(walletConnectionsMax, 8);
  assert.match(flat, /frames, eight connections/);
});

test("a commit has its fields where the table says", () => {
  const header = { segment: 3, generation: 5, block: 7, commitNumber: 11, records: 2, pendingRows: 1, epoch: 13 };
  const rest = { firstSequence: 17, releasedEpoch: 19, releasedThrough: 23, previousHash: new Uint8Array(32).fill(29) };
  const body = new Uint8Array(5_000).fill(31);
  const bytes = encodeCommit({ ...header, ...rest }, body);
  const rows = table("| offset | bytes |");
  const offsetOf = (name: string): [number, number] => {
    const row = rows.find(([, , what]) => what?.startsWith(name));
    assert.ok(row, name);
    return [Number(row[0]), Number(row[1])];
  };
  const integer = (name: string): number => bytes.readUIntBE(...offsetOf(name));
  assert.equal(bytes.subarray(0, offsetOf("magic")[1]).toString(), "ECPJ");
  assert.equal(integer("format version"), 1);
  assert.equal(integer("segment"), 3);
  assert.equal(integer("generation"), 5);
  assert.equal(integer("block number"), 7);
  assert.equal(Number(bytes.readBigUInt64BE(offsetOf("commit number")[0])), 11);
  assert.equal(integer("blocks of the commit"), 2);
  assert.equal(integer("records in it"), 2);
  assert.equal(integer("pending rows"), 1);
  assert.equal(integer("epoch"), 13);
  assert.equal(integer("sequence of its first"), 17);
  assert.equal(integer("length of the body"), 5_000);
  assert.equal(integer("released epoch"), 19);
  assert.equal(integer("released through"), 23);
  assert.equal(bytes[offsetOf("SHA-256")[0]], 29);
  assert.equal(bytes[96], 31);
  assert.equal(bytes.readUInt16BE(blockBytes + offsetOf("part")[0]), 1);
  const filler = fillerBlock(3, 9);
  assert.equal(filler.readUInt16BE(offsetOf("part")[0]), 0xffff);
  assert.equal(filler.readUInt32BE(offsetOf("generation")[0]), 0);
});

test("the state has the keys that the text names", () => {
  const state: JournalState = {
    ...{
      epochs: [{ epoch: 1, base: 0 }],
      nextSequence: 1,
      lastDigest: new Uint8Array(32),
      generation: 0,
      lastRows: [],
    },
    ...{ oldestPendingCommit: 0, installations: new Map([[0, 1]]), counter: 1, dropped: { epoch: 1, sequence: 1 } },
    relative: { generation: 1, bootId: new Uint8Array(16) },
    lastStarted: { softwareId: "x", policyDigest: new Uint8Array(32) },
  };
  const body = decodeCbor(encodeBody({ records: [], pendingRows: [], state, dropping: { epoch: 1, sequence: 1 } }));
  assert.ok(body instanceof Map);
  assert.deepEqual([...body.keys()], [4, 5]);
  const keys = [...(body.get(4) as Map<number, CborValue>).keys()];
  const named = flat.slice(flat.indexOf("State: 1 ")).split("Keys 7 to 11")[0] as string;
  assert.deepEqual(
    [...named.matchAll(/(?:State:|·) (\d+) /g)].map(([, key]) => Number(key)),
    keys,
  );
  assert.ok(flat.includes(`oldest first, at most ${epochsMax} · 7`));
  assert.ok(flat.includes(`records of at most ${epochsMax} epochs`));
});

test("an unknown key in a commit's body is left aside", () => {
  assert.deepEqual(decodeBody(encodeCbor(new Map([[9, "of a version to come"]]))), { records: [], pendingRows: [] });
});
