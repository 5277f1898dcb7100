// kill -9 of the real process at random instants under load, and a device that refuses a write.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, test } from "node:test";
import { setTimeout as startTimer } from "node:timers";
import { setTimeout } from "node:timers/promises";
import { type WalletClient, WalletUnavailable } from "../../agent/wallet-client.ts";
import { kidOf } from "../../protocol/public-key.ts";
import type { Row } from "../../protocol/record.ts";
import { decodeRecord } from "../../protocol/record.ts";
import { WalletRefusal } from "../../protocol/wallet-message.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";
import { checkChain, epoch, meterOf, NodeFixture, rowAt, sha256, startS } from "../wallet/wallet-fixture.ts";
import { WalletFolder } from "./wallet-process.ts";

const folder = new WalletFolder();
const node = new NodeFixture();
after(() => folder.remove());

const policy = {
  meters: [meterOf(), meterOf({ index: 1, slotS: 60 })],
  nodes: [{ name: "node", publicKey: node.publicKey, share: new Uint8Array(32) }],
  sealEveryS: 600,
};

interface Sealed {
  readonly meter: number;
  readonly slotS: number;
  readonly row: Row;
  /** Undefined while no answer came. */
  sequence?: number;
}

async function seal(client: WalletClient, item: Sealed): Promise<number> {
  const { meter, slotS, row } = item;
  try {
    const { sequences } = await client.seal({ meter, plan: 0, slotS, codes: [2, 4], rows: [row] });
    return sequences[0] as number;
  } catch (error) {
    if (!(error instanceof WalletRefusal) || error.reason !== "rate-exceeded") throw error;
    await setTimeout(20); // the policy's highest rate is 100 rows a second
    return seal(client, item);
  }
}

async function allRecords(client: WalletClient): Promise<Map<number, Uint8Array>> {
  const { firstSequence, nextSequence } = await client.hello();
  const records = new Map<number, Uint8Array>();
  for (let from = firstSequence; from < nextSequence; ) {
    const answer = await client.read(from, nextSequence - 1);
    for (const [sequence, bytes] of answer.records) records.set(sequence, bytes);
    from = (answer.records.at(-1)?.[0] ?? nextSequence) + 1;
  }
  return records;
}

const kills = 10;

test(`${kills} kill -9 under load: no acknowledged seal lost, no sequence of two digests, the same request the same bytes`, async (t) => {
  const random = randomOfRun();
  folder.make(policy, 3);
  const digests = new Map<number, string>();
  const asked: Sealed[] = [];
  let timeS = startS;
  let doubtful = 0;
  const see = (records: ReadonlyMap<number, Uint8Array>): void => {
    checkChain(records, folder.key.publicKey);
    for (const [sequence, bytes] of records) {
      const digest = Buffer.from(decodeRecord(bytes, sha256).digest).toString("hex");
      assert.equal(digests.get(sequence) ?? digest, digest, `sequence ${sequence}, seed ${random.seed}`);
      digests.set(sequence, digest);
    }
  };
  for (let kill = 0; kill <= kills; kill++) {
    const wallet = folder.run();
    const client = await folder.client(wallet);
    const records = await allRecords(client);
    see(records);
    const { through } = await client.hello();
    // What was asked before the kill and is not released: each acknowledged row is there, each other one can be asked for again.
    for (const item of asked) {
      if (item.sequence === undefined) doubtful++;
      const sequence = await seal(client, item);
      if (item.sequence) assert.equal(sequence, item.sequence, `seed ${random.seed}: the same record again`);
      if (sequence > through && sequence !== 0) {
        const {
          records: [found],
        } = await client.read(sequence, sequence);
        const { content } = decodeRecord(found?.[1] as Uint8Array, sha256);
        assert.ok(content.kind === "reading" && content.rows.some(({ timeS: of }) => of === item.row.timeS));
      }
      item.sequence = sequence;
    }
    asked.splice(0, asked.length, ...asked.slice(-20));
    if (kill === kills) {
      client.close();
      assert.equal((await wallet.end("SIGTERM")).code, 0);
      break;
    }
    const timer = startTimer(() => wallet.child.kill("SIGKILL"), random.integer(1, 250));
    try {
      for (;;) {
        timeS++;
        const pending = timeS % 60 === 0 && random.chance(80);
        const item: Sealed = { meter: pending ? 1 : 0, slotS: pending ? 60 : 1, row: rowAt(timeS) };
        asked.push(item);
        item.sequence = await seal(client, item);
        if (item.sequence > 0 && item.sequence % 40 === 0) {
          const {
            records: [last],
          } = await client.read(item.sequence, item.sequence);
          const { digest } = decodeRecord(last?.[1] as Uint8Array, sha256);
          await client.release(
            node.receipt({ device: kidOf(folder.key.publicKey, sha256), epoch, through: item.sequence, digest }),
          );
        }
      }
    } catch (error) {
      if (!(error instanceof WalletUnavailable) && !(error instanceof WalletRefusal && error.reason === "ring-full"))
        throw error;
    }
    client.close();
    const { code } = await wallet.ended;
    clearTimeout(timer);
    assert.equal(code, null, "killed, and did not end by itself");
  }
  t.diagnostic(`seed ${random.seed}: ${digests.size} records read back, ${doubtful} seals without an answer`);
  assert.ok(digests.size > 30 && doubtful > kills / 3);
});

test("a device that refuses a write: no false acknowledgement, exit 74, and a new start recovers", async () => {
  folder.make({ ...policy, sealEveryS: 0 }, 3);
  // Beyond 200 KiB of a segment every write fails (EFBIG), as it would with EIO or ENOSPC.
  const run = `trap '' XFSZ; ulimit -f 200; exec ${folder.program} run --data ${folder.data} --socket ${folder.socket} --passphrase-file ${folder.passphraseFile}`;
  const sealed: Sealed[] = [];
  const item = (): Sealed => ({ meter: 0, slotS: 1, row: rowAt(startS + sealed.length) });
  for (let start = 0; start < 2; start++) {
    const wallet = folder.started(spawn("bash", ["-c", run], { stdio: ["ignore", "pipe", "pipe"] }));
    if (start === 0) {
      const client = await folder.client(wallet);
      await assert.rejects(async () => {
        for (;;) {
          const next = item();
          next.sequence = await seal(client, next);
          sealed.push(next);
        }
      }, WalletUnavailable);
      client.close();
    }
    const { code, stderr } = await wallet.ended;
    assert.equal(code, 74, stderr);
    assert.match(stderr, /EFBIG|was cut at/);
  }
  assert.ok(sealed.length > 30, `${sealed.length} sealed before`);
  const cured = folder.run();
  const client = await folder.client(cured);
  const records = await allRecords(client);
  checkChain(records, folder.key.publicKey);
  for (const known of sealed) {
    assert.equal(await seal(client, known), known.sequence);
    assert.ok(records.has(known.sequence as number));
  }
  assert.ok((await seal(client, item())) > (sealed.at(-1)?.sequence as number));
  client.close();
  assert.equal((await cured.end("SIGTERM")).code, 0);
});
