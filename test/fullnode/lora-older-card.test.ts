// A wallet and a full node that know each other by LoRaWAN alone: bare records up, receipts of 41 bytes down, and nothing else.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { enrolDevice } from "../../fullnode/registry.ts";
import { packetOf, receiptPort, recordPort } from "../../protocol/lorawan.ts";
import { multibaseOf } from "../../protocol/public-key.ts";
import { readEnrolAnswer, readReadAnswer, readReleaseAnswer, WalletRefusal } from "../../protocol/wallet-message.ts";
import { meterOf, rowAt, startS, WalletFixture } from "../wallet/wallet-fixture.ts";
import { LorawanFixture } from "./lorawan-fixture.ts";

const devEui = "70b3d57ed0061234";
const slotS = 900;
const roundsMax = 6;

class Hub {
  readonly wallet: WalletFixture;
  readonly #lorawan: LorawanFixture;
  readonly refusals: string[] = [];
  readonly #stored = new Set<string>();
  #fCnt = 0;

  constructor(t: TestContext, lorawan: LorawanFixture) {
    const { publicKey, share } = lorawan.node.keys;
    const policy = {
      meters: [meterOf({ slotS: 60 })],
      plans: [{ plan: 1, slotS, sealEveryS: 0 }],
      nodes: [{ name: "node", publicKey, share }],
    };
    this.wallet = new WalletFixture(t, { policy, segments: 8 });
    this.#lorawan = lorawan;
  }

  seal(from: number, count: number, more = 0): void {
    for (let i = from; i < from + count; i++) {
      const { values, ...row } = rowAt(startS + slotS * i);
      this.wallet.seal([{ ...row, values: values.map((value) => value + more) }], { plan: 1, slotS });
    }
  }

  /** Sends what no receipt has named, the newest epoch first, until nothing waits. Gives the rounds that it took. */
  async exchange(): Promise<number> {
    for (let round = 1; round <= roundsMax; round++) {
      const { epoch, through, nextSequence, earlierEpochs } = this.wallet.hello();
      const waiting = [{ epoch, through, last: nextSequence - 1 }, ...earlierEpochs].filter(
        (one) => one.through < one.last,
      );
      if (waiting.length === 0) return round - 1;
      for (const one of waiting)
        for (let sequence = one.through + 1; sequence <= one.last; sequence++) await this.#send(one.epoch, sequence);
    }
    return roundsMax;
  }

  async #send(epoch: number, sequence: number): Promise<void> {
    if (this.#stored.has(`${epoch}/${sequence}`)) return;
    const read = { type: "read", from: sequence, to: sequence, epoch, bare: true } as const;
    const [record] = readReadAnswer(this.wallet.ask(read)).records;
    assert.ok(record, `record ${epoch}/${sequence}`);
    await this.#lorawan.up(devEui, this.#fCnt++, recordPort, packetOf(record[1]));
    const downlinks = this.#lorawan.takeDownlinks();
    this.#lorawan.sent(downlinks);
    for (const { fPort, bytes } of downlinks) if (fPort === receiptPort) this.#release(bytes);
  }

  #release(receipt: Uint8Array): void {
    try {
      const { epoch, stored = [] } = readReleaseAnswer(this.wallet.ask({ type: "release", receipt }));
      for (const [first, last] of stored)
        for (let sequence = first; sequence <= last; sequence++) this.#stored.add(`${epoch}/${sequence}`);
    } catch (error) {
      if (!(error instanceof WalletRefusal)) throw error;
      this.refusals.push(error.reason);
    }
  }

  /** The agent knows nothing of before: its card is another one. */
  forget(): void {
    this.#stored.clear();
  }
}

async function community(t: TestContext) {
  const lorawan = await LorawanFixture.open(t);
  const hub = new Hub(t, lorawan);
  const { node } = lorawan;
  await enrolDevice(node.store, node.keys, readEnrolAnswer(hub.wallet.ask({ type: "enrol" })), 1);
  await node.store.lorawan.bind(devEui, multibaseOf(hub.wallet.key.publicKey), 1);
  await lorawan.begin();
  return { lorawan, node, hub };
}

test("all that is sealed is stored, and released by receipts of 41 bytes", async (t) => {
  const { node, hub } = await community(t);
  hub.seal(1, 6);
  assert.equal(await hub.exchange(), 1);
  assert.deepEqual(hub.refusals, []);
  assert.equal(node.counted().booked, 6);
});

test("an older card that is put back: seen, kept as evidence, held, and in the end nothing waits at the hub", async (t) => {
  const { lorawan, node, hub } = await community(t);
  const { wallet } = hub;
  hub.seal(1, 3);
  await hub.exchange();
  const copy = wallet.image();
  hub.seal(4, 4);
  await hub.exchange();
  const { epoch } = wallet.hello();
  const booked = node.counted().booked;
  wallet.close();
  wallet.putImage(copy);
  wallet.restart();
  hub.forget();
  hub.seal(20, 2, 7_000);
  assert.ok((await hub.exchange()) < roundsMax, "it comes to rest");
  const after = wallet.hello();
  assert.notEqual(after.epoch, epoch);
  assert.deepEqual(after.earlierEpochs, []);
  assert.equal(after.through, after.nextSequence - 1);
  assert.ok(hub.refusals.length > 0, "what contradicted it");
  assert.ok(node.count("evidence") > 0);
  assert.equal(node.counted().booked, booked, "nothing of it is booked before the owner has said so");
  hub.seal(30, 2, 7_000);
  await hub.exchange();
  assert.equal(wallet.hello().through, wallet.hello().nextSequence - 1, "an epoch that is held is acknowledged, too");
  await node.decide(after.epoch);
  lorawan.expectChanges();
  hub.seal(40, 1, 7_000);
  await hub.exchange();
  assert.ok(node.counted().booked > booked);
});
