// The real wallet at a hub with LoRaWAN: plans, bare reads and receipts of 41 bytes, over kill -9, a backup, a rotation and a retirement.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import type { WalletClient } from "../../agent/wallet-client.ts";
import { verifyCose } from "../../protocol/cose-sign1.ts";
import { openEnrolmentRequest } from "../../protocol/enrolment.ts";
import type { LoraReceipt } from "../../protocol/lora-receipt.ts";
import { kidOf } from "../../protocol/public-key.ts";
import { decodeRecord } from "../../protocol/record.ts";
import { deviceKeyOf, readKeyFile, unlockSeed } from "../../wallet/keystore.ts";
import { verifyEd25519 } from "../../wallet/verification.ts";
import { meterOf, NodeFixture, refusal, sha256 } from "../wallet/wallet-fixture.ts";
import { passphrase, WalletFolder } from "./wallet-process.ts";

const slotS = 900;
const node = new NodeFixture();
const policy = {
  meters: [meterOf({ slotS: 60 })],
  nodes: [{ name: "node", publicKey: node.publicKey, share: node.agreement.share }],
  plans: [{ plan: 1, slotS, sealEveryS: 86_400 }],
  encryptTo: "first",
} as const;
const folder = new WalletFolder();
after(() => folder.remove());
/** A day ago, so that the policy's longest batch ends none of what follows. */
const dayS = Math.floor(Date.now() / 86_400_000) * 86_400 - 86_400;

async function sealBatch(client: WalletClient, from: number): Promise<number> {
  const request = { meter: 0, plan: 1, slotS, codes: [2, 4] };
  const row = (i: number) => ({ timeS: dayS + slotS * (i + 1), status: 0, values: [1_000 + i, 2 * i] });
  for (const i of [0, 1, 2])
    assert.deepEqual((await client.seal({ ...request, rows: [row(from + i)] })).sequences, [0]);
  const { sequences } = await client.seal({ ...request, rows: [row(from + 3)], closes: true });
  return sequences[0] as number;
}

/** A receipt for all of an epoch up to a record that leaves bare. */
async function receiptFor(client: WalletClient, share: Uint8Array, place: Pick<LoraReceipt, "epoch" | "sequence">) {
  const { records } = await client.read(place.sequence, place.sequence, place.epoch, true);
  const { digest } = decodeRecord(records[0]?.[1] as Uint8Array, sha256);
  return node.loraReceipt({ ...place, digest }, share);
}

function succeeds(args: readonly string[]): string {
  const { code, stdout, stderr } = folder.command(args);
  assert.equal(code, 0, stderr);
  return stdout;
}

test("batches leave bare, receipts of 41 bytes release them, whatever happens to the wallet in between", async () => {
  folder.make(policy, 3);
  const opened = ["--data", folder.data, "--passphrase-file", folder.passphraseFile];
  let wallet = folder.run();
  let client = await folder.client(wallet);
  const { epoch, plans, recordForm } = await client.hello();
  assert.deepEqual([plans, recordForm], [policy.plans, "encrypted"]);
  const first = await sealBatch(client, 0);
  const { records, withheld } = await client.read(1, 99, epoch, true);
  assert.equal(withheld, undefined);
  const batch = decodeRecord(records.at(-1)?.[1] as Uint8Array, sha256);
  verifyCose(batch.cose, folder.key.publicKey, verifyEd25519);
  assert.equal(batch.content.kind === "reading" && batch.content.rows.length, 4);
  const place = { epoch, sequence: first };
  const receipt = await receiptFor(client, folder.key.share, place);
  const forged = new NodeFixture("forger").loraReceipt({ ...place, digest: batch.digest }, folder.key.share);
  await assert.rejects(client.release(forged), refusal("receipt-invalid"));
  assert.deepEqual(await client.release(receipt), { epoch, through: first, stored: [[1, first]] });

  // What is released is written with the next commit.
  const second = await sealBatch(client, 4);
  client.close();
  await wallet.end("SIGKILL");
  wallet = folder.run();
  client = await folder.client(wallet);
  assert.equal((await client.hello()).through, first);

  const output = path.join(folder.root, "backup.key");
  const backupFile = path.join(folder.root, "backup.passphrase");
  writeFileSync(backupFile, "of the backup\n", { mode: 0o600 });
  succeeds(["backup", ...opened, "--output", output, "--backup-passphrase-file", backupFile]);
  assert.deepEqual(readKeyFile(readFileSync(output)).history?.receipt, receipt);
  succeeds(["journal", "check", "--data", folder.data]);
  assert.match(succeeds(["journal", "stats", "--data", folder.data]), /\d/);
  const handedOver = path.join(folder.root, "records.ecp");
  succeeds(["journal", "export", "--data", folder.data, "--output", handedOver, "--waiting"]);
  assert.ok(
    readFileSync(handedOver).includes(
      Buffer.from((await client.read(second, second, epoch, true)).records[0]?.[1].slice(-64) as Uint8Array),
    ),
  );
  client.close();
  assert.equal((await wallet.end("SIGTERM")).code, 0);

  succeeds(["rotate", ...opened]);
  wallet = folder.run();
  client = await folder.client(wallet);
  const { request } = openEnrolmentRequest(await client.enrol(), verifyEd25519, sha256);
  const older = { epoch, sequence: second };
  await assert.rejects(client.release(await receiptFor(client, folder.key.share, older)), refusal("receipt-invalid"));
  assert.equal((await client.release(await receiptFor(client, request.share, older))).through, second);
  const seed = unlockSeed(readFileSync(path.join(folder.data, "device.key")), Buffer.from(passphrase), "");
  assert.deepEqual(deviceKeyOf(seed).share, request.share);
  client.close();
  assert.equal((await wallet.end("SIGTERM")).code, 0);

  succeeds(["retire", ...opened, "--yes"]);
  wallet = folder.run();
  client = await folder.client(wallet);
  const hello = await client.hello();
  const [earlier] = hello.earlierEpochs;
  const left = { epoch, sequence: earlier?.last as number };
  await assert.rejects(client.release(await receiptFor(client, request.share, left)), refusal("receipt-invalid"));
  const { records: last } = await client.read(left.sequence, left.sequence, epoch, true);
  const { digest } = decodeRecord(last[0]?.[1] as Uint8Array, sha256);
  const signed = node.receipt({
    ...{ device: kidOf(folder.key.publicKey, sha256), epoch, through: left.sequence },
    digest,
  });
  assert.equal((await client.release(signed)).through, left.sequence, "control: a signed one releases");
  client.close();
  assert.equal((await wallet.end("SIGTERM")).code, 0);
});
