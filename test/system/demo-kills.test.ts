// Each part of the demo is killed once, with kill -9 and in an order that the seed chooses: nothing sealed is lost, or doubled.
import assert from "node:assert/strict";
import { test } from "node:test";
import { publicKeyOfDid } from "../../protocol/public-key.ts";
import { SeededRandom } from "../protocol/seeded-random.ts";
import { hexOf } from "../vectors/signature-suite.ts";
import { isRunning } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";
import { assertWholeChain, storedConflicts, storedRecords } from "./stored-chain-fixture.ts";

const seed = process.env.ECP_TEST_SEED === undefined ? Date.now() % 2 ** 32 : Number(process.env.ECP_TEST_SEED);

test("node, agent, wallet and simulator are killed once each: missing 0, no sequence twice, one whole chain", async (t) => {
  const random = new SeededRandom(seed);
  const order = ["node", "agent", "wallet", "simulator"];
  for (let i = order.length - 1; i > 0; i--) {
    const j = random.integer(0, i);
    [order[i], order[j]] = [order[j] as string, order[i] as string];
  }
  t.diagnostic(`ECP_TEST_SEED=${seed} kills in this order: ${order.join(", ")}`);
  const scene = new Scene(t);
  const data = scene.path("data");
  const demo = scene.start("ecp-demo", "--interval", "1", "--restart-after", "1", "--json", "--data", data);
  const good = (event: Record<string, unknown>): boolean => event.event === "reading" && event.status === "G";
  await demo.event(({ event }) => event === "acknowledged");
  for (const part of order) {
    const started = demo.events().filter((event) => event.event === "started" && event.part === part);
    const pid = started.at(-1)?.pid as number;
    const position = demo.position;
    process.kill(pid, "SIGKILL");
    const ended = await demo.event((event) => event.event === "ended" && event.part === part, position);
    assert.equal(ended.signal, "SIGKILL");
    const again = await demo.event((event) => event.event === "started" && event.part === part, position);
    assert.notEqual(again.pid, pid);
    // Whatever part it was: a meter is read, and what is sealed is acknowledged again before the next one dies.
    const restarted = demo.position;
    await demo.event(good, restarted);
    const sealed = await demo.event(({ event }) => event === "sealed", restarted);
    const through = (event: Record<string, unknown>): boolean =>
      event.event === "acknowledged" && (event.through as number) >= (sealed.sequence as number);
    await demo.event(through, restarted);
    // Some moments are worse than others: the seed chooses how many events later the next kill comes.
    const moment = demo.position;
    const count = random.integer(0, 7);
    for (let i = 0; i < count; i++) await demo.event(() => true, moment + i);
  }
  demo.signal("SIGINT");
  assert.equal((await demo.ending()).code, 0, demo.stdout.slice(-30).join("\n"));
  const { summary } = JSON.parse(demo.stdout.at(-1) as string) as { summary: Record<string, number> };
  assert.equal(summary.missing, 0);
  assert.equal(summary.refused, 0);
  assert.equal(summary.acknowledged, summary.sealed);
  assert.equal(demo.events().filter(({ event, signal }) => event === "ended" && signal === "SIGKILL").length, 4);
  for (const { event, pid } of demo.events()) if (event === "started") assert.ok(!isRunning(pid as number));

  const stored = demo.events().filter(({ event }) => event === "stored");
  const sequences = stored.map(({ sequence }) => sequence as number);
  assert.equal(new Set(sequences).size, sequences.length, "no sequence was stored twice");
  const records = storedRecords(`${data}/node`);
  const publicKey = publicKeyOfDid(stored[0]?.device as string);
  const last = assertWholeChain(records, publicKey);
  assert.equal(storedConflicts(`${data}/node`), 0);

  // The wallet's journal says the same, digest by digest.
  const exported = await scene.succeed("ecp", "export", "--config", `${data}/hub.yaml`, "--format", "json");
  const journal = exported.split("\n").filter((line) => line !== "");
  assert.deepEqual(
    journal
      .map((line) => JSON.parse(line) as { sequence: number; digest: string })
      .filter(({ sequence }) => sequence <= last) // the export starts the wallet, which seals that it was
      .map(({ sequence, digest }) => [sequence, digest]),
    records.map(({ sequence, record }) => [sequence, hexOf(record.digest)]),
  );

  // Control: the check finds a record that is missing, one that is changed, and one that is there twice.
  const [one, two] = [records[1], records[2]] as const;
  assert.ok(one && two);
  assert.throws(() => assertWholeChain(records.toSpliced(1, 1), publicKey), /after 1 comes 2|names the digest/);
  assert.throws(() => assertWholeChain(records.toSpliced(2, 0, one), publicKey), /after 2 comes 3/);
  const digest = Uint8Array.from(one.record.digest).fill(1, 0, 1);
  const spoilt = { ...one, record: { ...one.record, digest } };
  assert.throws(() => assertWholeChain(records.toSpliced(1, 1, spoilt), publicKey), /names the digest/);
});
