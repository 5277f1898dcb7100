import assert from "node:assert/strict";
import { test } from "node:test";
import { type CborValue, decodeCbor, encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { enrolmentBytesMax, openEnrolmentRequest } from "../../protocol/enrolment.ts";
import { Refusal } from "../../protocol/refusal.ts";
import { readEnrolAnswer } from "../../protocol/wallet-message.ts";
import {
  decodePolicy,
  emptyPolicy,
  encodePolicy,
  resolutionWhDefault,
  type WalletPolicy,
} from "../../wallet/policy.ts";
import { verifyEd25519 } from "../../wallet/verification.ts";
import { meterOf, rowAt, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

const policy: WalletPolicy = {
  meters: [meterOf(), meterOf({ index: 255, name: "Wärmepumpe", slotS: 900, powerMaxW: 11_000, rowsPerMinute: 1 })],
  nodes: [{ name: "node", publicKey: new Uint8Array(32).fill(1), share: new Uint8Array(32).fill(2) }],
  sealEveryS: 900,
  whenFull: "drop_oldest",
  retentionDays: 90,
  encryptTo: new Uint8Array(32).fill(1),
  plans: [
    { plan: 1, slotS: 900, sealEveryS: 86_400 },
    { plan: 3, slotS: 60, sealEveryS: 0 },
  ],
};

test("a policy comes back as it was written", () => {
  assert.deepEqual(decodePolicy(encodePolicy(policy)), policy);
  const first: WalletPolicy = { ...policy, encryptTo: "first" };
  assert.deepEqual(decodePolicy(encodePolicy(first)), first);
  assert.deepEqual(decodePolicy(encodePolicy(emptyPolicy)), emptyPolicy);
});

test("a policy that is not understood whole is not obeyed", () => {
  const good = decodeCbor(encodePolicy(policy)) as Map<number, CborValue>;
  const changed = (key: number | string, value: CborValue | undefined): Uint8Array => {
    const map = new Map<number | string, CborValue>(good);
    if (value === undefined) map.delete(key);
    else map.set(key, value);
    return encodeCbor(map);
  };
  const meter = [0, "house", "sdm630", 60, 0, 60, 1_000, 0, ""];
  const cases: [string, Uint8Array][] = [
    ["an unknown field", changed(9, 0)],
    ["plans that are no list", changed(8, 0)],
    ["a plan with a field too few", changed(8, [[1, 900]])],
    ["a plan with a field too many", changed(8, [[1, 900, 3_600, 0]])],
    ["the full plan among the others", changed(8, [[0, 900, 3_600]])],
    ["a plan beyond the last", changed(8, [[4, 900, 3_600]])],
    ["a plan of snapshots", changed(8, [[1, 0, 3_600]])],
    ["batches longer than a day", changed(8, [[1, 900, 86_401]])],
    [
      "a plan twice",
      changed(8, [
        [1, 900, 3_600],
        [1, 900, 3_600],
      ]),
    ],
    [
      "plans that descend",
      changed(8, [
        [2, 900, 3_600],
        [1, 900, 3_600],
      ]),
    ],
    ["encryption to what is no key", changed(7, 1)],
    ["encryption to a key that is too short", changed(7, new Uint8Array(31))],
    ["a field below the first", changed(0, 0)],
    ["a field with a name", changed("meters", 0)],
    ["another version", changed(1, 2)],
    ["no meters", changed(2, undefined)],
    ["a meter with a field too many", changed(2, [[...meter, 1]])],
    ["a meter with a field too few", changed(2, [meter.slice(0, 5)])],
    ["a meter with half of what came later", changed(2, [meter.slice(0, 8)])],
    ["two meters of one index", changed(2, [meter, meter])],
    ["a rate of nothing", changed(2, [[...meter.slice(0, 5), 0]])],
    ["a slot longer than a day", changed(2, [[0, "house", "sdm630", 86_401, 0, 60]])],
    ["a key that is too short", changed(3, [["node", new Uint8Array(31), new Uint8Array(32)]])],
    ["seal_every longer than a day", changed(4, 86_401)],
    ["an unknown when_full", changed(5, 2)],
    [
      "names that no enrolment request could hold",
      changed(
        2,
        Array.from({ length: 200 }, (_, i) => [i, "n".repeat(64), "p".repeat(64), 60, 0, 60]),
      ),
    ],
    ["bytes behind it", Uint8Array.from([...encodePolicy(policy), 0])],
  ];
  for (const [name, bytes] of cases) assert.throws(() => decodePolicy(bytes), Refusal, name);
});

test("a policy of before meters had a resolution and an installation is read, with the coarsest register", () => {
  const map = decodeCbor(encodePolicy(policy)) as Map<number, CborValue>;
  map.set(2, [[0, "house", "sdm630", 60, 0, 60]]);
  assert.deepEqual(decodePolicy(encodeCbor(map)).meters, [
    meterOf({ slotS: 60, rowsPerMinute: 60, resolutionWh: resolutionWhDefault }),
  ]);
});

test("the longest policy still makes an enrolment request, which its own key signs", (t) => {
  const meters = Array.from({ length: 256 }, (_, index) =>
    meterOf({ index, name: "n".repeat(16), profile: "p".repeat(16) }),
  );
  decodePolicy(encodePolicy({ ...policy, meters }));
  const wallet = new WalletFixture(t, { policy: { meters } });
  const request = readEnrolAnswer(wallet.ask({ type: "enrol" }));
  assert.ok(request.length < enrolmentBytesMax);
  const { request: opened } = openEnrolmentRequest(request, verifyEd25519, sha256);
  assert.equal(opened.meters.length, 256);
  assert.deepEqual(opened.publicKey, wallet.key.publicKey);
});

test("a clock far out of range keeps the wallet neither from starting nor from sealing", (t) => {
  const wallet = new WalletFixture(t);
  for (const wallS of [-1, 0, 2 ** 32, 2 ** 40]) {
    wallet.clock.set(wallS);
    wallet.restart();
    wallet.secondsPerSeal = 0;
    assert.equal(wallet.seal([rowAt(startS + wallet.hello().nextSequence)]).length, 1);
    wallet.ask({ type: "enrol" });
  }
});
