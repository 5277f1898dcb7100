// What an agent that was taken over may hand to the wallet: receipts that no pinned full node has signed. Nothing is released.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { WalletClient } from "../../agent/wallet-client.ts";
import { SealedEnvelopes } from "../../fullnode/sealed-envelope.ts";
import { agreedCipher } from "../../platform/agreed-cipher.ts";
import { contentTypes, decodeCose, encodeCose, signCose } from "../../protocol/cose-sign1.ts";
import { signEnrolmentAnswer } from "../../protocol/enrolment.ts";
import { kidOf, publicKeyOfDid } from "../../protocol/public-key.ts";
import { type Receipt, signReceipt } from "../../protocol/receipt.ts";
import { decodeRecord } from "../../protocol/record.ts";
import { WalletRefusal, type WalletRefusalReason } from "../../protocol/wallet-message.ts";
import { nodeShare } from "../vectors/encryption-vectors.ts";
import { keyOfLabel, sha256, type TestKey } from "../vectors/signature-suite.ts";
import { Scene } from "./scene-fixture.ts";

const timeS = 1_700_000_000;
const pinned = keyOfLabel("pinned node");
const stranger = keyOfLabel("a node that is not pinned");

interface WalletScene {
  readonly wallet: WalletClient;
  /** kid of the device. */
  readonly device: Uint8Array;
  /** Content of a true receipt for all that is sealed. */
  readonly truth: Receipt;
}

async function sealedWallet(scene: Scene): Promise<WalletScene> {
  const config = scene.path("hub.yaml");
  const init = ["--tcp", "127.0.0.1:502", "--interval", "60", "--segments", "4"];
  await scene.succeed("ecp", "init", "--folder", scene.folder, ...init);
  await scene.succeed("ecp", "enrol", "--config", config, "--out", scene.path("request.cose"));
  // The full node's answer, signed by a key whose secret this test has.
  const name = (await scene.succeed("ecp-wallet", "show", "--data", scene.path("wallet"))).trim();
  const device = kidOf(publicKeyOfDid(name), sha256);
  const answer = signEnrolmentAnswer(
    {
      device,
      request: new Uint8Array(32),
      publicKey: pinned.publicKey,
      share: nodeShare.share,
      timeS,
      nodeName: "pinned",
    },
    pinned.sign,
    sha256,
  );
  writeFileSync(scene.path("answer.cose"), answer);
  await scene.succeed("ecp", "pin", scene.path("answer.cose"), "--config", config, "--yes");

  const socket = scene.path("w.sock");
  const paths = ["--data", scene.path("wallet"), "--passphrase-file", scene.path("wallet.passphrase")];
  const process = scene.start("ecp-wallet", "run", ...paths, "--socket", socket, "--exit-with-parent");
  await process.event(({ message }) => message === "ready");
  const wallet = new WalletClient(socket);
  scene.atEnd(() => wallet.close());
  const rows = [{ timeS, status: 0, values: [1_000] }];
  await wallet.seal({ meter: 0, plan: 0, slotS: 60, codes: [2], rows });
  const { nextSequence, epoch, through } = await wallet.hello();
  assert.equal(through, 0);
  const last = (await wallet.read(nextSequence - 1, nextSequence - 1)).records[0]?.[1];
  const envelopes = new SealedEnvelopes({ share: nodeShare.share, agree: agreedCipher.bind(undefined, nodeShare.key) });
  const digest = decodeRecord(envelopes.open(last as Uint8Array), sha256).digest;
  const truth = { device, epoch, through: nextSequence - 1, digest, ranges: [], held: false, refused: [], timeS };
  return { wallet, device, truth };
}

function signed(receipt: Receipt, key: TestKey): Uint8Array {
  return signReceipt(receipt, key.sign, kidOf(key.publicKey, sha256));
}

test("a receipt that no pinned key has signed releases nothing; control: the pinned one does", async (t) => {
  const { wallet, truth, device } = await sealedWallet(new Scene(t));
  const good = signed(truth, pinned);
  const cose = decodeCose(good);
  const flipped = (bytes: Uint8Array, at: number): Uint8Array => bytes.map((byte, i) => (i === at ? byte ^ 1 : byte));
  const enrolment = signCose(contentTypes.enrolmentAnswer, cose.payload, pinned.sign, kidOf(pinned.publicKey, sha256));
  const otherDevice = device.map((byte) => byte ^ 0xff);
  const forgeries: readonly [what: string, receipt: Uint8Array, reason: WalletRefusalReason][] = [
    ["signed by a key that is not pinned, and honest about it", signed(truth, stranger), "receipt-not-pinned"],
    [
      "signed by a key that is not pinned, under the pinned one's name",
      signReceipt(truth, stranger.sign, kidOf(pinned.publicKey, sha256)),
      "receipt-invalid",
    ],
    ["without a kid", encodeCose({ ...cose, kid: undefined } as never), "receipt-not-pinned"],
    ["with one bit of the signature changed", flipped(good, good.length - 1), "receipt-invalid"],
    [
      "with the pinned node's signature of another receipt",
      encodeCose({ ...cose, signature: decodeCose(signed({ ...truth, timeS: timeS + 1 }, pinned)).signature }),
      "receipt-invalid",
    ],
    ["signed by the pinned node as another kind of message", enrolment, "receipt-invalid"],
    ["for another device", signed({ ...truth, device: otherDevice }, pinned), "receipt-other-device"],
    ["for another epoch", signed({ ...truth, epoch: (truth.epoch ^ 1) >>> 0 }, pinned), "receipt-other-epoch"],
    ["for more than was sealed", signed({ ...truth, through: truth.through + 1 }, pinned), "receipt-beyond-sealed"],
    [
      "for another record of the same sequence",
      signed({ ...truth, digest: new Uint8Array(32).fill(1) }, pinned),
      "receipt-digest-mismatch",
    ],
    ["that is no message at all", new Uint8Array(80), "receipt-invalid"],
  ];
  for (const [what, receipt, reason] of forgeries) {
    await assert.rejects(wallet.release(receipt), (error: unknown) => {
      assert.ok(error instanceof WalletRefusal, `${what}: ${String(error)}`);
      assert.equal(error.reason, reason, what);
      return true;
    });
    const { through, earlierEpochs } = await wallet.hello();
    assert.ok(through === 0 && earlierEpochs.every((epoch) => epoch.through === 0), `${what}: nothing is released`);
  }
  // The pinned node's two that contradict the journal made it begin another epoch.
  const { earlierEpochs } = await wallet.hello();
  assert.deepEqual(earlierEpochs, [{ epoch: truth.epoch, through: 0, last: truth.through }]);
  assert.equal((await wallet.release(good)).through, truth.through, "control: the pinned node's own receipt");
  assert.deepEqual((await wallet.hello()).earlierEpochs, []);
});
