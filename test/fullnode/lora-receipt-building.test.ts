// What a full node's receipt says in 41 bytes, and that the device which the node knows can verify it, over rotations of its key.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { LoraReceipts, loraReceiptOf } from "../../fullnode/lora-receipt-building.ts";
import { enrolDevice, type KnownDevice, Registry } from "../../fullnode/registry.ts";
import { signEnrolmentRequest } from "../../protocol/enrolment.ts";
import {
  decodeLoraReceipt,
  loraBitmapBits,
  loraMacBytes,
  loraReceiptInfo,
  loraReceiptTypes,
  storedSequences,
} from "../../protocol/lora-receipt.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import type { Receipt } from "../../protocol/receipt.ts";
import { type DeviceKey, deviceKeyOf } from "../../wallet/keystore.ts";
import { SeededRandom } from "../protocol/seeded-random.ts";
import { nodeKey } from "../vectors/signature-suite.ts";
import { DeviceFixture, firstTimeS, sha256 } from "./device-fixture.ts";
import { NodeFixture } from "./node-fixture.ts";

const digest = (sequence: number): Uint8Array => sha256(Uint8Array.of(sequence >> 8, sequence & 0xff));

function receiptOf(through: number, ranges: readonly (readonly [number, number])[]): Receipt {
  return {
    ...{ device: new Uint8Array(8), epoch: 7, through, held: false, refused: [], timeS: firstTimeS },
    ...(through > 0 && { digest: digest(through) }),
    ranges: ranges.map(([first, last]) => ({ first, last, digest: digest(last) })),
  };
}

test("what came is named: behind `through` by type 1, far ahead of it by type 2", () => {
  const cases: [string, Receipt, number, [number, number, [number, number][]]][] = [
    ["all", receiptOf(9, []), 9, [1, 9, [[1, 9]]]],
    ["nothing but a later one", receiptOf(0, [[3, 3]]), 3, [1, 0, [[3, 3]]]],
    [
      "a gap",
      receiptOf(9, [[12, 14]]),
      14,
      [
        1,
        9,
        [
          [1, 9],
          [12, 14],
        ],
      ],
    ],
    [
      "the last that the bitmap reaches",
      receiptOf(9, [[41, 41]]),
      41,
      [
        1,
        9,
        [
          [1, 9],
          [41, 41],
        ],
      ],
    ],
    ["the first that it does not", receiptOf(9, [[42, 42]]), 42, [2, 42, [[42, 42]]]],
    [
      "a run far ahead",
      receiptOf(9, [
        [12, 14],
        [90, 95],
        [97, 99],
      ]),
      99,
      [
        2,
        99,
        [
          [90, 95],
          [97, 99],
        ],
      ],
    ],
    ["what came again, below", receiptOf(9, [[90, 95]]), 4, [1, 9, [[1, 9]]]],
    ["what is kept as evidence", receiptOf(9, [[90, 95]]), 80, [1, 9, [[1, 9]]]],
    ["type 2 that reaches what is through", receiptOf(9, [[42, 42]]), 42, [2, 42, [[42, 42]]]],
  ];
  for (const [name, receipt, sequence, [type, at, stored]] of cases) {
    const made = loraReceiptOf(receipt, { sequence });
    assert.deepEqual([made.type, made.sequence, storedSequences(made)], [type, at, stored], name);
    assert.deepEqual(made.digest, at === 0 ? new Uint8Array(8) : digest(at).slice(0, 8), name);
  }
});

test("a record that fills a gap deep in a long run is named by its own digest", () => {
  const receipt = receiptOf(9, [[100, 400]]);
  const made = loraReceiptOf(receipt, { sequence: 150, digest: digest(150) });
  assert.deepEqual([made.type, made.sequence], [loraReceiptTypes.storedBehindGap, 150]);
  assert.deepEqual(made.digest, digest(150).slice(0, 8));
  assert.deepEqual(storedSequences(made), [[118, 150]]);
  assert.equal(loraReceiptOf(receipt, { sequence: 150 }).sequence, 400, "without it, the run's end");
});

test("what came again, and is named under kept, is named by its own digest", () => {
  const kept = [{ first: 20, last: 20, digest: digest(20) }];
  const came = { sequence: 20, digest: digest(20) };
  const receipt = { ...receiptOf(40, []), kept };
  const made = loraReceiptOf(receipt, { ...came, isRepeated: true });
  assert.deepEqual([made.type, made.sequence, storedSequences(made)], [2, 20, [[1, 20]]]);
  assert.deepEqual(made.digest, digest(20).slice(0, 8));
  assert.equal(loraReceiptOf(receipt, came).type, 1, "control: what is new");
  assert.equal(loraReceiptOf(receiptOf(40, []), { ...came, isRepeated: true }).type, 1, "control: not named");
});

test("a record that is kept as evidence is named by its own digest, with those of its own run, and nothing of the chain", () => {
  const kept = [{ first: 5, last: 9, digest: digest(9) }];
  const of = { digest: digest(700).slice(0, 32), isEvidence: true };
  const made = loraReceiptOf({ ...receiptOf(40, [[60, 70]]), kept }, { sequence: 7, ...of });
  assert.deepEqual([made.type, made.sequence], [loraReceiptTypes.evidence, 7]);
  assert.deepEqual(made.digest, of.digest.slice(0, 8));
  assert.deepEqual(storedSequences(made), [[5, 7]]);
  const alone = loraReceiptOf(receiptOf(40, []), { sequence: 7, ...of });
  assert.deepEqual(storedSequences(alone), [[7, 7]]);
});

test("nothing is named that the signed receipt does not name, and what came is named", () => {
  const random = new SeededRandom(5);
  for (let i = 0; i < 2_000; i++) {
    const through = random.chance(20) ? 0 : random.integer(1, 60);
    const ranges: [number, number][] = [];
    for (let first = through + random.integer(2, 60); ranges.length < random.integer(0, 6); ) {
      const last = first + random.integer(0, 50);
      ranges.push([first, last]);
      first = last + random.integer(2, 40);
    }
    const receipt = receiptOf(through, ranges);
    const [first, last] = ranges.length > 0 ? random.pick(ranges) : [1, Math.max(1, through)];
    const sequence = random.integer(first, last);
    const isStored = (one: number) => (one <= through && one > 0) || ranges.some(([a, b]) => one >= a && one <= b);
    const made = loraReceiptOf(receipt, { sequence, digest: digest(sequence) });
    const named = storedSequences(made).flatMap(([a, b]) => Array.from({ length: b - a + 1 }, (_, k) => a + k));
    for (const one of named) assert.ok(isStored(one), `${one} of ${JSON.stringify({ through, ranges, sequence })}`);
    if (isStored(sequence)) assert.ok(named.includes(sequence), JSON.stringify({ through, ranges, sequence }));
    assert.ok(named.length <= Math.max(1, made.type === 1 ? made.sequence : 1) + loraBitmapBits);
  }
});

/** A device with X25519 shares of its own, as a wallet has them. */
class AgreeingDevice extends DeviceFixture {
  readonly agreement: DeviceKey;

  constructor(seed: Uint8Array) {
    super(undefined, nodeKey(seed));
    this.agreement = deviceKeyOf(seed);
  }

  override request(share = this.agreement.share): Uint8Array {
    const meters = [{ index: 0, name: "house", profile: "sdm630" }];
    const content = { publicKey: this.key.publicKey, share, epoch: this.epoch, timeS: firstTimeS, meters };
    return signEnrolmentRequest({ ...content, softwareId: "ecp-test 1" }, this.sign, sha256);
  }
}

function verifies(bytes: Uint8Array, key: DeviceKey, nodeShare: Uint8Array): boolean {
  const { signed, mac } = decodeLoraReceipt(bytes);
  const make = key.agreeMac(nodeShare, loraReceiptInfo(key.share, nodeShare));
  return Buffer.from(make(signed).subarray(0, loraMacBytes)).equals(mac);
}

test("a receipt is for the key that the wallet has: after a rotation for the new one, settled or not", async (t) => {
  const node = new NodeFixture(t);
  const device = new AgreeingDevice(randomBytes(32));
  await enrolDevice(node.store, node.keys, device.request(), 1);
  const made = async (): Promise<Uint8Array> => {
    const known = (await new Registry(node.store).device(device.name)) as KnownDevice;
    return (await new LoraReceipts(node.store, node.keys).receipt(known, receiptOf(3, []), {
      sequence: 3,
    })) as Uint8Array;
  };
  const isFor = async (key: DeviceKey): Promise<boolean> => verifies(await made(), key, node.keys.share);
  const before = device.readings(2);
  await node.deliver(device, before[0] as (typeof before)[0]);
  assert.ok(await isFor(device.agreement));
  assert.ok(!(await isFor(deviceKeyOf(randomBytes(32)))), "control: another device's key");

  const seed = randomBytes(32);
  const [next, nextAgreement] = [{ key: nodeKey(seed), epoch: 77 }, deviceKeyOf(seed)];
  const rotation = device.rotation(next, { share: nextAgreement.share });
  device.begin(next.epoch, next.key);
  const after = device.reading({ timeS: firstTimeS + 90_000 });
  await node.deliver(device, rotation, after); // a record before them is missing
  assert.ok(await isFor(nextAgreement), "announced");
  assert.ok(!(await isFor(device.agreement)), "the old seed is gone");
  await node.deliver(device, ...before);
  assert.ok(await isFor(nextAgreement), "settled");
  await node.restart();
  assert.ok(await isFor(nextAgreement), "after a restart");

  const thirdSeed = randomBytes(32);
  const third = deviceKeyOf(thirdSeed);
  const again = device.rotation({ key: nodeKey(thirdSeed), epoch: 78 }, { share: third.share });
  await node.deliver(device, again);
  assert.ok(await isFor(third), "a second rotation");
});

test("the answer to the rotation itself is for the new key already, though the old one was agreed with before", async (t) => {
  const node = new NodeFixture(t);
  const device = new AgreeingDevice(randomBytes(32));
  await enrolDevice(node.store, node.keys, device.request(), 1);
  const receipts = new LoraReceipts(node.store, node.keys);
  const made: Uint8Array[] = [];
  const delivered = async (record: { bytes: Uint8Array }): Promise<Uint8Array> => {
    let making: Promise<void> | undefined;
    const answered = (): void => {
      const known = node.registry.device(device.name);
      making = Promise.resolve(known)
        .then((found) => receipts.receipt(found as KnownDevice, receiptOf(3, []), { sequence: 3 }))
        .then((bytes) => void made.push(bytes as Uint8Array));
    };
    node.path.push(topicOf(device.name, "record"), record.bytes, answered);
    await node.path.idle();
    await making;
    return made.at(-1) as Uint8Array;
  };
  assert.ok(verifies(await delivered(device.reading()), device.agreement, node.keys.share));
  const seed = randomBytes(32);
  const next = deviceKeyOf(seed);
  const rotation = device.rotation({ key: nodeKey(seed), epoch: 77 }, { share: next.share });
  assert.ok(verifies(await delivered(rotation), next, node.keys.share));
});

test("the owner rejects a rotation: receipts are for the key before it; a share of small order gets none", async (t) => {
  const node = new NodeFixture(t);
  const device = new AgreeingDevice(randomBytes(32));
  await enrolDevice(node.store, node.keys, device.request(), 1);
  const receipts = new LoraReceipts(node.store, node.keys);
  const known = async (): Promise<KnownDevice> => (await new Registry(node.store).device(device.name)) as KnownDevice;
  const seed = randomBytes(32);
  const [first] = [device.reading()];
  const rotation = device.rotation({ key: nodeKey(seed), epoch: 77 }, { share: deviceKeyOf(seed).share });
  await node.deliver(device, first, rotation);
  const { id } = await known();
  await node.store.transaction({ devices: [id], places: [] }, async (tx) => {
    await tx.updateEpoch(id, 77, { decision: "rejected", held: true });
    await tx.setCurrentKey(id, device.publicKey);
  });
  const bytes = (await receipts.receipt(await known(), receiptOf(3, []), { sequence: 3 })) as Uint8Array;
  assert.ok(verifies(bytes, device.agreement, node.keys.share));

  const weak = new AgreeingDevice(randomBytes(32));
  await enrolDevice(node.store, node.keys, weak.request(new Uint8Array(32)), 1);
  const weakDevice = (await new Registry(node.store).device(weak.name)) as KnownDevice;
  assert.equal(await receipts.receipt(weakDevice, receiptOf(3, []), { sequence: 3 }), undefined);
});
