// An agent that has been taken over: whatever it sends, nothing is sealed against the policy, nothing crashes, and every refusal
// has a reason of the closed list.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type CborValue, decodeCbor, encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { decodeRecord, valueMax } from "../../protocol/record.ts";
import {
  decodeAnswer,
  encodeWalletRequest,
  WalletRefusal,
  type WalletRefusalReason,
  walletMessageBytesMax,
  walletRefusals,
} from "../../protocol/wallet-message.ts";
import { randomOfRun, type SeededRandom } from "../protocol/seeded-random.ts";
import { checkChain, meterOf, NodeFixture, rowAt, rowsFrom, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

const meters = [
  meterOf({ rowsPerMinute: 30, powerMaxW: 3_600, resolutionWh: 10 }),
  meterOf({ index: 3, slotS: 60, rowsPerMinute: 30 }),
  meterOf({ index: 7, slotS: 0 }),
];

const plans = [
  { plan: 1, slotS: 900, sealEveryS: 3_600 },
  { plan: 3, slotS: 60, sealEveryS: 0 },
];

function asked(wallet: WalletFixture, message: Uint8Array): WalletRefusalReason | "answered" {
  const { fields } = decodeAnswer(wallet.wallet.answer(message));
  return fields instanceof WalletRefusal ? fields.reason : "answered";
}

/** Integers at which something may break. */
const edges = [
  0,
  1,
  2,
  3,
  23,
  24,
  59,
  60,
  61,
  255,
  256,
  1_440,
  65_535,
  65_536,
  startS,
  2 ** 32 - 1,
  2 ** 32,
  valueMax,
  valueMax + 1,
  -1,
  -valueMax,
  Number.MAX_SAFE_INTEGER,
];

function anyValue(random: SeededRandom, depth = 0): CborValue {
  switch (random.integer(0, depth > 3 ? 4 : 7)) {
    case 0:
    case 1:
      return random.pick(edges);
    case 2:
      return random.bytes(random.integer(0, 40));
    case 3:
      return random.pick(["", "a", "ü", "receipt"]);
    case 4:
      return random.pick([true, false, null]);
    case 5:
      return new Map(
        Array.from({ length: random.integer(0, 4) }, (_, i) => [
          i + random.integer(-1, 1) + 4 * i,
          anyValue(random, depth + 1),
        ]),
      );
    default:
      return Array.from({ length: random.integer(0, 5) }, () => anyValue(random, depth + 1));
  }
}

/** A request that is nearly right, with one thing or the other changed. */
function nearlyRight(wallet: WalletFixture, random: SeededRandom): Uint8Array {
  const meter = random.pick([0, 0, 3, 7, 9]);
  const plan = random.chance(80) ? 0 : random.chance(80) ? random.integer(0, 3) : random.pick(edges);
  const ofPlan = plans.find((terms) => terms.plan === plan) ?? meters.find(({ index }) => index === meter);
  const slotS = random.chance(90) ? (ofPlan?.slotS ?? 1) : random.pick(edges);
  const codes = random.chance(80) ? [2, 4] : [random.integer(1, 70_000)];
  const timeS = startS + (random.chance(50) ? random.integer(0, 3_000) : 60 * random.integer(0, 50));
  const rows = Array.from({ length: random.chance(70) ? 1 : random.integer(0, 62) }, (_, i): CborValue[] => [
    random.chance(98) && Number.isSafeInteger(timeS + i * slotS) ? timeS + i * slotS : random.pick(edges),
    random.chance(90) ? 0 : random.integer(0, 13),
    codes.map(() => (random.chance(95) ? random.integer(0, 5) : random.pick(edges))),
  ]);
  const fields = new Map<number, CborValue>([
    [1, meter],
    [2, plan],
    [3, slotS],
    [4, codes],
    [5, rows],
    ...(random.chance(5) ? ([[6, random.chance(90) ? true : anyValue(random)]] as const) : []),
    ...(random.chance(10) ? ([[7, random.chance(90) ? true : anyValue(random)]] as const) : []),
  ]);
  const node = random.chance(50) ? wallet.node : new NodeFixture("forger");
  const receipt = node.receipt({
    device: random.chance(80) ? wallet.kid : random.bytes(8),
    through: random.integer(1, 200),
    digest: random.bytes(32),
  });
  const others: [number, Map<number, CborValue>][] = [
    [1, new Map()],
    [2, new Map()],
    [
      4,
      new Map([
        [1, random.pick(edges)],
        [2, random.pick(edges)],
      ]),
    ],
    [5, new Map([[1, receipt]])],
    [
      6,
      new Map([
        [1, random.pick([0, 3, 9])],
        [2, random.chance(80) ? timeS : random.pick(edges)],
        [3, random.chance(80) ? timeS + 60 * random.integer(0, 20) : random.pick(edges)],
      ]),
    ],
  ];
  const [type, content] = random.chance(75) ? ([3, fields] as const) : random.pick(others);
  if (random.chance(10)) content.set(random.integer(-1, 8), anyValue(random));
  if (random.chance(5)) content.delete(random.integer(1, 5));
  const request: CborValue[] = [random.chance(98) ? type : random.pick(edges), random.integer(0, 2 ** 32 - 1), content];
  if (random.chance(2)) request.push(anyValue(random));
  return encodeCbor(request);
}

function mutated(bytes: Uint8Array, random: SeededRandom): Uint8Array {
  const changed = Uint8Array.from(bytes);
  for (let i = random.integer(1, 4); i > 0; i--)
    changed[random.integer(0, changed.length - 1)] = random.integer(0, 255);
  return random.chance(20) ? changed.subarray(0, random.integer(0, changed.length)) : changed;
}

/** The rules, told again: what may stand in a record that this policy seals. */
function checkPolicy(wallet: WalletFixture): number {
  let rows = 0;
  const slots = new Set<string>();
  const stands = new Map<string, number>();
  for (const bytes of wallet.journal.epochs.flatMap(({ epoch }) => [...wallet.records(epoch).values()])) {
    const { content } = decodeRecord(bytes, sha256);
    if (content.kind !== "reading") continue;
    const meter = meters.find(({ index }) => index === content.meter);
    const slotS = content.plan === 0 ? meter?.slotS : plans.find(({ plan }) => plan === content.plan)?.slotS;
    assert.equal(slotS, content.slotS, `plan ${content.plan}`);
    rows += content.rows.length;
    for (const { timeS, status, values } of content.rows) {
      for (const [i, value] of values.entries()) {
        const register = `${content.meter}/${content.plan}/${content.codes[i]}`;
        if (status !== 0 || content.clockState === 3 || ![2, 4].includes(content.codes[i] as number)) continue;
        assert.ok(value >= (stands.get(register) ?? Number.NEGATIVE_INFINITY), `${register} falls to ${value}`);
        stands.set(register, value);
      }
      const slot = `${content.meter}/${content.plan}/${content.generation}/${timeS}`;
      assert.ok(!slots.has(slot), `${slot} twice`);
      slots.add(slot);
    }
  }
  return rows;
}

test("6,000 seeded requests: nothing is sealed against the policy, nothing crashes, each refusal has its reason", (t) => {
  const random = randomOfRun();
  const wallet = new WalletFixture(t, { policy: { meters, plans, sealEveryS: 600 }, segments: 64, segmentBlocks: 64 });
  wallet.clock.set(startS + 3_600);
  const counts = new Map<string, number>();
  for (let i = 0; i < 6_000; i++) {
    const kind = random.integer(1, 100);
    let message = nearlyRight(wallet, random);
    if (kind > 40) message = mutated(message, random);
    if (kind > 85) message = encodeCbor(anyValue(random));
    if (kind > 95) message = random.bytes(random.integer(0, 100));
    const reason = asked(wallet, message);
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
    wallet.clock.pass(0.06);
    if (i % 300 === 299) wallet.clock.set(startS + random.integer(0, 3_600)); // the one who sets the clock is not the agent
    if (i % 1_500 === 1_499) wallet.restart();
  }
  t.diagnostic(`seed ${random.seed}: ${JSON.stringify(Object.fromEntries(counts))}`);
  for (const reason of counts.keys()) assert.ok(reason === "answered" || Object.hasOwn(walletRefusals, reason));
  for (const reason of ["answered", "malformed", "unknown-meter", "rate-exceeded", "unknown-field"])
    assert.ok((counts.get(reason) ?? 0) > 10, `${reason} was met (seed ${random.seed})`);
  assert.ok(checkPolicy(wallet) > 100);
  for (const { epoch } of wallet.journal.epochs) checkChain(wallet.records(epoch), wallet.key.publicKey);
});

test("control: a wallet of a wider policy seals what this one refuses, and the check sees it", (t) => {
  const wider = [...meters, meterOf({ index: 9, slotS: 5 })];
  const wallet = new WalletFixture(t, { policy: { meters: wider } });
  wallet.seal([rowAt(startS)], { meter: 9, slotS: 5 });
  assert.throws(() => checkPolicy(wallet), assert.AssertionError);
});

/** One request for each reason that a wallet can give. */
const provocations: Record<WalletRefusalReason, (t: TestContext, wallet: WalletFixture) => Uint8Array> = {
  malformed: () => Uint8Array.from([0x80]),
  "unknown-request": () => encodeCbor([7, 1, new Map()]),
  "unknown-field": () => encodeCbor([1, 1, new Map([[1, 1]])]),
  "unknown-meter": () => sealOf({ meter: 1 }),
  "unknown-plan": () => sealOf({ plan: 2 }),
  "slot-mismatch": () => sealOf({ slotS: 60 }),
  "row-conflict": (_t, wallet) => {
    wallet.seal([rowAt(startS)]);
    return sealOf({ rows: [{ ...rowAt(startS), values: [9, 9] }] });
  },
  "rate-exceeded": (_t, wallet) => {
    wallet.secondsPerSeal = 0;
    for (let i = 0; i < 120; i += 60) wallet.seal(rowsFrom(startS + i, 60));
    return sealOf({ rows: [rowAt(startS + 120)] });
  },
  "ring-full": (_t, wallet) => {
    for (let i = 0; ; i++)
      if (asked(wallet, sealOf({ rows: [rowAt(startS + i)] })) === "ring-full")
        return sealOf({ rows: [rowAt(startS + i)] });
      else wallet.clock.pass(1);
  },
  "key-retired": (_t, wallet) => {
    wallet.retired = true;
    wallet.restart();
    return sealOf({});
  },
  "period-not-held": () => encodeWalletRequest(1, { type: "statement", meter: 0, fromS: startS, toS: startS + 900 }),
  "no-recipient": (_t, wallet) => {
    wallet.policy = { ...wallet.policy, nodes: [], encryptTo: "first" };
    wallet.restart();
    return encodeWalletRequest(1, { type: "read", from: 1, to: 9 });
  },
  "receipt-invalid": () => encodeWalletRequest(1, { type: "release", receipt: Uint8Array.from([1]) }),
  "receipt-not-pinned": (_t, wallet) => releaseOf(wallet, {}, new NodeFixture("forger")),
  "receipt-other-device": (_t, wallet) => releaseOf(wallet, { device: new Uint8Array(8) }),
  "receipt-other-epoch": (_t, wallet) => releaseOf(wallet, { epoch: 1 }),
  "receipt-beyond-sealed": (_t, wallet) => releaseOf(wallet, { through: 1_000 }),
  "receipt-digest-mismatch": (_t, wallet) => releaseOf(wallet, { digest: new Uint8Array(32) }),
};

function sealOf(request: Partial<Parameters<typeof encodeWalletRequest>[1] & { type: "seal" }>): Uint8Array {
  const base = { type: "seal", meter: 0, plan: 0, slotS: 1, codes: [2, 4], rows: [rowAt(startS)] } as const;
  return encodeWalletRequest(1, { ...base, ...request });
}

function releaseOf(wallet: WalletFixture, content: object, node = wallet.node): Uint8Array {
  const receipt = node.receipt({ device: wallet.kid, through: 1, digest: wallet.digestOf(1), ...content });
  return encodeWalletRequest(1, { type: "release", receipt });
}

for (const [reason, provoke] of Object.entries(provocations)) {
  test(`refused: ${reason}`, (t) => {
    const policy = { meters: [meterOf({ rowsPerMinute: 600 })] };
    const wallet = new WalletFixture(t, { policy, segments: 16 });
    const message = provoke(t, wallet);
    const { nextSequence, through } = wallet.hello();
    assert.equal(asked(wallet, message), reason);
    const { fields } = decodeAnswer(wallet.wallet.answer(message));
    assert.ok(
      fields instanceof WalletRefusal && fields.message.startsWith(walletRefusals[reason as WalletRefusalReason]),
    );
    const after = wallet.hello();
    assert.deepEqual([after.nextSequence, after.through], [nextSequence, through], "nothing came of it");
  });
}

test("what is longer than a message, or not CBOR, is refused with the id 0", (t) => {
  const wallet = new WalletFixture(t);
  for (const message of [new Uint8Array(walletMessageBytesMax + 1), new Uint8Array(0), Uint8Array.from([0xff])]) {
    const answer = decodeAnswer(wallet.wallet.answer(message));
    assert.equal(answer.id, 0);
    assert.ok(answer.fields instanceof WalletRefusal && answer.fields.reason === "malformed");
  }
});

test("no answer holds the seed, the key's scalar or a way to have bytes signed", (t) => {
  const wallet = new WalletFixture(t);
  const seed = Buffer.alloc(32, 7);
  for (const request of [{ type: "hello" }, { type: "enrol" }, { type: "read", from: 1, to: 9 }] as const) {
    const answer = Buffer.from(wallet.wallet.answer(encodeWalletRequest(1, request)));
    assert.ok(decodeCbor(answer), "an answer");
    assert.ok(!answer.includes(seed) && !answer.includes(seed.toString("hex")));
  }
});
