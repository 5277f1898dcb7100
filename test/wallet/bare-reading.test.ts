// Records in the form for LoRaWAN: without tag and kid, and only those that the policy means for it.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { verifyCose } from "../../protocol/cose-sign1.ts";
import { decodeRecord } from "../../protocol/record.ts";
import { type ReadAnswer, readBytesMax, readReadAnswer } from "../../protocol/wallet-message.ts";
import type { WalletPolicy } from "../../wallet/policy.ts";
import { verifyEd25519 } from "../../wallet/verification.ts";
import { meterOf, refusal, rowAt, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

const plans = [{ plan: 1, slotS: 900, sealEveryS: 0 }];
const hourS = 3_600;

/** Rows of both plans each quarter hour from 08:15 on, and the events of two starts. */
function fixture(t: TestContext, policy: Partial<WalletPolicy> = {}): WalletFixture {
  const all = { meters: [meterOf({ slotS: 900 })], plans, ...policy };
  const wallet = new WalletFixture(t, { policy: all, segments: 8 });
  for (let i = 1; i <= 4; i++) {
    wallet.seal([rowAt(startS + 900 * i)]);
    if (all.plans.length > 0) wallet.seal([rowAt(startS + 900 * i)], { plan: 1 });
  }
  wallet.restart();
  return wallet;
}

function bare(wallet: WalletFixture, from = 1, to = 0xffff_ffff): ReadAnswer {
  return readReadAnswer(wallet.ask({ type: "read", from, to, bare: true }));
}

/** The sequences that leave and those that do not, by what the records hold. */
function split(wallet: WalletFixture): { leaves: string[]; withheld: number } {
  const { records, withheld = [] } = bare(wallet);
  const kinds = records.map(([, bytes]) => {
    const { content } = decodeRecord(bytes, sha256);
    return content.kind === "event" ? "event" : `plan ${content.plan}`;
  });
  return { leaves: [...new Set(kinds)].sort(), withheld: withheld.length };
}

test("a bare record is the sealed one without tag and kid: the same digest, the same signature", (t) => {
  const wallet = fixture(t);
  const whole = wallet.records();
  const { records, withheld } = bare(wallet);
  assert.deepEqual([...records.map(([sequence]) => sequence), ...(withheld ?? [])].sort(), [...whole.keys()].sort());
  for (const [sequence, bytes] of records) {
    const [before, after] = [decodeRecord(whole.get(sequence) as Uint8Array, sha256), decodeRecord(bytes, sha256)];
    assert.equal(bytes[0], 0x84, "no tag");
    assert.equal(after.cose.kid, undefined);
    assert.deepEqual(after.digest, before.digest);
    verifyCose(after.cose, wallet.key.publicKey, verifyEd25519);
    assert.equal(bytes.length, (whole.get(sequence) as Uint8Array).length - 11);
  }
});

test("what the policy lists leaves, and events; the full plan does not", (t) => {
  assert.deepEqual(split(fixture(t)), { leaves: ["event", "plan 1"], withheld: 4 });
  assert.deepEqual(split(fixture(t, { plans: [] })), { leaves: [], withheld: 6 }, "no plans: nothing");
});

test("encryption on the way concerns the broker: what is meant for LoRaWAN leaves bare, all else never", (t) => {
  const wallet = fixture(t, { encryptTo: "first" });
  assert.equal(wallet.hello().recordForm, "encrypted");
  assert.deepEqual(split(wallet), { leaves: ["event", "plan 1"], withheld: 4 });
  wallet.clock.pass(40 * hourS);
  wallet.seal([rowAt(startS + 40 * hourS)], { plan: 1 });
  assert.deepEqual(split(wallet), { leaves: ["event", "plan 1"], withheld: 4 }, "though the full plan has ended");
  wallet.policy = { ...wallet.policy, nodes: [] };
  wallet.restart();
  assert.equal(wallet.hello().recordForm, "withheld");
  assert.throws(() => wallet.ask({ type: "read", from: 1, to: 9 }), refusal("no-recipient"));
  assert.deepEqual(split(wallet), { leaves: ["event", "plan 1"], withheld: 4 });
});

test("a day after the full plan has ended, what is left of it leaves bare where nothing is encrypted", (t) => {
  const wallet = fixture(t);
  const thin = (hours: number) => {
    wallet.clock.pass(hours * hourS);
    wallet.seal([rowAt(startS + 900 * 4 * (1 + hours))], { plan: 1 });
  };
  thin(24);
  assert.equal(split(wallet).withheld, 4, "a day: it may come back");
  thin(26);
  assert.deepEqual(split(wallet), { leaves: ["event", "plan 0", "plan 1"], withheld: 0 });
});

test("an answer is as long as that of a read; what is withheld is told, so that the next one goes on behind it", (t) => {
  const wallet = new WalletFixture(t, { policy: { meters: [meterOf()], plans, sealEveryS: 0 }, segments: 80 });
  for (let i = 1; i <= 600; i++) wallet.seal([rowAt(startS + i)]);
  wallet.seal([rowAt(startS + 900)], { plan: 1, slotS: 900 });
  const found: number[] = [];
  let questions = 0;
  for (let from = 1; from < wallet.hello().nextSequence; questions++) {
    const { records, withheld = [] } = bare(wallet, from);
    assert.ok(withheld.length * 100 < readBytesMax);
    found.push(...records.map(([sequence]) => sequence));
    from = Math.max(records.at(-1)?.[0] ?? 0, withheld.at(-1) ?? 0) + 1;
  }
  assert.ok(questions > 1);
  assert.deepEqual(found, [1, 602], "the start, and the one of plan 1");
});
