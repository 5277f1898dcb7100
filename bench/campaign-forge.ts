/**
 * Forged records against the real path of records, forged receipts, signed ones and those of 41 bytes, against the real wallet, each made of a genuine one; records also
 * inside envelopes that open, and envelopes that were bent. None may be accepted: nothing stored, nothing released. Control: verifiers
 * each without one of the checks, to which some of the same forgeries are good.
 */
import { mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import type { TestContext } from "node:test";
import { enrolDevice } from "../fullnode/registry.ts";
import { encryptionInfo, encryptRecord } from "../protocol/encrypted-record.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { Refusal } from "../protocol/refusal.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import { DeviceFixture } from "../test/fullnode/device-fixture.ts";
import { NodeFixture } from "../test/fullnode/node-fixture.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { nodeKey } from "../test/vectors/signature-suite.ts";
import { meterOf, rowAt, startS, WalletFixture } from "../test/wallet/wallet-fixture.ts";
import { deviceKeyOf } from "../wallet/keystore.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { CarelessVerifiers } from "./careless-verifiers.ts";
import { CarelessMacs, forgedLoraReceipts } from "./forged-lora-receipt.ts";
import { digestText, type Forged, forged, forgeryKinds, type Genuine } from "./forged-message.ts";
import { forgedRequests, recordsOfSmallOrderNames } from "./forged-name.ts";
import { receiptsOfOthers } from "./forged-receipt.ts";
import { flippedBit } from "./forged-signature.ts";

const devicesOfNode = 20;
const recordsEach = 20;
const perTurn = 200;

await runCampaign("forge", async (campaign) => {
  const careless = new CarelessVerifiers();
  const carelessMacs = new CarelessMacs();
  const node = await againstNode(campaign, campaign.count(130_000, 4_000), careless);
  const wallet = againstWallet(campaign, campaign.count(70_000, 2_000), careless, carelessMacs);
  const figures = { ...node, ...wallet, forgeries: node.records + wallet.receipts };
  const isTried = careless.smallest > 0 && carelessMacs.smallest > 0 && wallet.genuineReleased && node.genuineStored;
  return {
    figures,
    control: { ...careless.accepted, ...carelessMacs.accepted },
    holds: isTried && node.stored + node.enrolled + node.unaccounted + wallet.released + wallet.failures === 0,
  };
});

async function againstNode(campaign: Campaign, count: number, careless: CarelessVerifiers) {
  const { random } = campaign;
  const node = new NodeFixture(contextOf(campaign));
  const devices = Array.from(
    { length: devicesOfNode },
    () => new DeviceFixture(random.uint32(), nodeKey(random.bytes(32))),
  );
  for (const device of devices) await enrolDevice(node.store, node.keys, device.request(), 1);
  const genuine = devices.map((device) =>
    device.readings(recordsEach).map((record) => ({ ...record, key: device.key })),
  );
  const honest = new Set(genuine.flat().map(({ bytes }) => digestText(bytes)));
  // Half of the genuine ones are there, so that forgeries of what is known and of what is not both come.
  for (const [i, device] of devices.entries())
    await node.deliver(device, ...(genuine[i] ?? []).slice(0, recordsEach / 2));
  const storedBefore = placesTaken(node);
  const envelope = envelopes(node, random);
  let records = 0;
  let inEnvelopes = 0;
  const push = (name: string, bytes: Uint8Array): void => {
    node.path.push(topicOf(name, "record"), bytes);
    records++;
  };
  for (let turn = 0; records < count; turn++) {
    for (let i = 0; i < perTurn; i++) {
      const [own, others] = [random.integer(0, devicesOfNode - 1), random.integer(0, devicesOfNode - 1)];
      const of = random.pick(genuine[own] as Genuine[]);
      const { name } = devices[own] as DeviceFixture;
      if (i % 20 === 0 && own !== others) push((devices[others] as DeviceFixture).name, of.bytes);
      if (i % 20 === 1) push(name, envelope.bent(of.bytes));
      const forgery = forged(
        forgeryKinds[(turn * perTurn + i) % forgeryKinds.length] as string,
        of,
        random.pick(genuine[own] as Genuine[]),
        random,
      );
      if (forgery === undefined) continue;
      careless.tryRecord(forgery, (devices[own] as DeviceFixture).key.publicKey);
      const inside = random.chance(30);
      if (inside) inEnvelopes++;
      push(name, inside ? envelope.around(forgery) : forgery.bytes);
    }
    for (const { name, bytes } of recordsOfSmallOrderNames(random, 4)) {
      careless.tryName(name, bytes);
      push(name, bytes);
    }
    await node.path.idle();
    if (node.failures.length > 0) throw node.failures[0];
    campaign.progress(records, count, "records");
  }
  const stored = placesTaken(node).filter((digest) => !honest.has(digest)).length;
  const gained = placesTaken(node).length - storedBefore.length;
  let enrolled = 0;
  const requests = forgedRequests(random, campaign.count(2_000, 200));
  for (const request of requests)
    try {
      await enrolDevice(node.store, node.keys, request, 1);
      enrolled++;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
    }
  const refused = Object.values(node.path.counts.refused).reduce((sum, one) => sum + one, 0);
  // The path was not closed by all this: the genuine rest is taken.
  for (const [i, device] of devices.entries()) await node.deliver(device, ...(genuine[i] ?? []).slice(recordsEach / 2));
  const genuineStored = node.count("records") === devicesOfNode * recordsEach && node.count("evidence") === 0;
  await node.path.stop();
  // Each message was refused or is one of the genuine ones in another wrapping.
  const unaccounted = Math.max(0, records - refused - gained);
  return {
    records,
    inEnvelopes,
    stored,
    enrolmentRequests: requests.length,
    enrolled,
    refused,
    unaccounted,
    genuineStored,
  };
}

/** Digests of all that the node keeps of anybody. */
function placesTaken(node: NodeFixture): string[] {
  return node
    .query("SELECT digest FROM records UNION ALL SELECT digest FROM evidence UNION ALL SELECT digest FROM quarantine")
    .map(({ digest }) => Buffer.from(digest as Uint8Array).toString("hex"));
}

/** Wraps forgeries as whoever knows the node's share can; and bends a genuine device's envelopes. */
function envelopes(node: NodeFixture, random: SeededRandom) {
  const keys = [1, 2, 3].map(() => deviceKeyOf(random.bytes(32)));
  const { share } = node.keys;
  const other = deviceKeyOf(random.bytes(32)).share;
  const seal = (bytes: Uint8Array, nodeShare: Uint8Array): Uint8Array => {
    const key = random.pick(keys);
    return encryptRecord(bytes, key.share, key.agree(nodeShare, encryptionInfo(key.share, nodeShare)));
  };
  return {
    around: ({ bytes }: Forged): Uint8Array => seal(bytes, share),
    bent: (bytes: Uint8Array): Uint8Array => {
      const good = seal(bytes, share);
      const ways = [
        () => seal(bytes, other),
        () => flippedBit(good, random),
        () => good.slice(0, random.integer(1, good.length - 1)),
        () => good.with(0, random.pick([0xd1, 0xd2, 0x83])),
        // Another sender's share under the same ciphertext.
        () => Uint8Array.from([...good.subarray(0, 15), ...other, ...good.subarray(47)]),
        () => seal(good, share),
      ];
      return random.pick(ways)();
    },
  };
}

function againstWallet(campaign: Campaign, count: number, careless: CarelessVerifiers, carelessMacs: CarelessMacs) {
  const { random } = campaign;
  const parent = mkdtempSync(path.join("/dev/shm", "ecp-forge-"));
  campaign.after(() => rmSync(parent, { recursive: true, force: true }));
  const wallet = new WalletFixture(contextOf(campaign), { parent, policy: { meters: [meterOf()] }, segments: 8 });
  for (let i = 0; i < 40; i++) wallet.seal([rowAt(startS + i)]);
  const signer = nodeKey(wallet.node.seed);
  const { nextSequence } = wallet.journal;
  const genuine: Genuine[] = Array.from({ length: nextSequence - 1 }, (_, i) => ({
    bytes: wallet.receiptThrough(i + 1),
    key: signer,
  }));
  const before = wallet.hello();
  let receipts = 0;
  let released = 0;
  let failures = 0;
  let short = 0;
  const hand = (receipt: Uint8Array): void => {
    receipts++;
    try {
      wallet.ask({ type: "release", receipt });
      released++;
    } catch (error) {
      if (error instanceof WalletRefusal) return;
      failures++;
      campaign.say((error as Error).stack ?? String(error));
    }
  };
  for (let i = 0; receipts < count; i++) {
    const of = random.pick(genuine);
    const forgery = forged(forgeryKinds[i % forgeryKinds.length] as string, of, random.pick(genuine), random);
    if (forgery) {
      careless.tryReceipt(forgery, signer.publicKey);
      hand(forgery.bytes);
    }
    if (i % 5 === 0)
      for (const { bytes, key } of receiptsOfOthers(wallet, signer, random)) {
        careless.tryOther(bytes, key);
        hand(bytes);
      }
    if (i % 5 === 2)
      for (const bytes of forgedLoraReceipts(wallet, random)) {
        carelessMacs.try(bytes, wallet);
        hand(bytes);
        short++;
      }
    campaign.progress(receipts, count, "receipts");
  }
  const after = wallet.hello();
  if (after.through !== before.through || after.epoch !== before.epoch) released++;
  const genuineReleased = wallet.release(nextSequence - 1) === nextSequence - 1;
  return { receipts, ofThemShort: short, released, failures, genuineReleased };
}

/** What fixtures of tests want of a test. */
function contextOf(campaign: Campaign): TestContext {
  return { after: (ending: () => unknown) => campaign.after(ending) } as unknown as TestContext;
}
