// Where the network does not reach: records go to the full node as a file, its receipts come back as one. Real hub, wallet and node.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { WalletClient } from "../../agent/wallet-client.ts";
import { readHubFile } from "../../cli/hub-configuration.ts";
import { encodeHandOverHeader, encodeHandOverRecord } from "../../protocol/hand-over.ts";
import { decodeReceiptFile, encodeReceiptFile } from "../../protocol/receipt-file.ts";
import { ecpNode } from "./node-process-fixture.ts";

const program = join(import.meta.dirname, "../../cli/ecp.ts");
const walletProgram = join(import.meta.dirname, "../../dist/ecp-wallet.cjs");

async function ecp(...args: readonly string[]): Promise<{ status: number; out: string; error: string }> {
  const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "pipe"], timeout: 60_000 });
  const [[status], out, error] = await Promise.all([once(child, "close"), text(child.stdout), text(child.stderr)]);
  return { status, out, error };
}

/** A hub that is enrolled at a node and has pinned it; nothing of either runs. */
async function pair(t: TestContext) {
  const folder = mkdtempSync("/tmp/ecp-r-"); // short: sockets lie in it
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const [hub, data, request] = [join(folder, "hub"), join(folder, "node"), join(folder, "request.cose")];
  const config = join(hub, "hub.yaml");
  const done = async (run: Promise<{ status: number; error: string }>) => {
    const { status, error } = await run;
    assert.equal(status, 0, error);
  };
  await done(ecp("init", "--folder", hub, "--tcp", "127.0.0.1:1", "--segments", "3", "--interval", "1"));
  await done(ecp("enrol", "--config", config, "--out", request));
  assert.equal(ecpNode("init", "--data", data).status, 0);
  assert.equal(ecpNode("enrol", request, "--data", data, "--out", `${request}.answer`).status, 0);
  await done(ecp("pin", `${request}.answer`, "--config", config, "--yes"));
  return { folder, hub, data, config };
}

/** The wallet with its clock at the present; ended with the test, or by what is given back. */
async function startWallet(t: TestContext, config: string) {
  const { walletFolder, walletSocket, passphraseFile = "" } = readHubFile(config).configuration;
  const args = ["run", "--data", walletFolder, "--socket", walletSocket, "--passphrase-file", passphraseFile];
  const child = spawn(process.execPath, [walletProgram, ...args], { stdio: ["ignore", "ignore", "pipe"] });
  const ended = once(child, "close");
  t.after(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  const client = new WalletClient(walletSocket);
  t.after(() => client.close());
  await client.connected(AbortSignal.timeout(30_000));
  const stop = async () => {
    client.close();
    child.kill("SIGTERM");
    await ended;
  };
  return { client, stop };
}

test("records carried to the node and receipts carried back: the wallet releases what the node has, twice without harm", async (t) => {
  const { folder, data, config } = await pair(t);
  const { client, stop } = await startWallet(t, config);
  const before = await client.hello();
  const timeS = Math.floor(Date.now() / 1_000);
  await client.seal({ meter: 0, plan: 0, slotS: 1, codes: [2], rows: [{ timeS, status: 0, values: [1_000] }] });
  const hello = await client.hello();
  const { records } = await client.read(1, hello.nextSequence - 1);
  assert.ok(records.length >= 2, `${records.length} records`);
  const file = join(folder, "hand-over.cbor");
  const header = encodeHandOverHeader({ nameKey: hello.nameKey, records: records.length });
  writeFileSync(file, Buffer.concat([header, ...records.map(([, bytes]) => encodeHandOverRecord(bytes))]));

  const receipts = join(folder, "receipts.cbor");
  const imported = ecpNode("import", file, "--data", data, "--receipts", receipts);
  assert.equal(imported.status, 0, imported.stdout + imported.stderr);
  assert.equal((await client.hello()).through, before.through);

  const released = await ecp("release", receipts, "--config", config);
  assert.equal(released.status, 0, released.out + released.error);
  assert.match(released.out, new RegExp(`epoch ${hello.epoch}: released up to record ${records.length}\n`));
  assert.equal((await client.hello()).through, records.length);
  await stop();

  // Again, by a wallet that is started for it.
  const again = await ecp("release", receipts, "--config", config, "--json");
  assert.equal(again.status, 0, again.out + again.error);
  assert.deepEqual(JSON.parse(again.out), { epoch: hello.epoch, through: records.length });
});

test("receipts that do not hold release nothing and are named; a damaged file is not handed over", async (t) => {
  const { folder, data, config } = await pair(t);
  const { client } = await startWallet(t, config);
  const hello = await client.hello();
  const { records } = await client.read(1, hello.nextSequence - 1);
  const file = join(folder, "hand-over.cbor");
  const header = encodeHandOverHeader({ nameKey: hello.nameKey, records: records.length });
  writeFileSync(file, Buffer.concat([header, ...records.map(([, bytes]) => encodeHandOverRecord(bytes))]));
  const receipts = join(folder, "receipts.cbor");
  assert.equal(ecpNode("import", file, "--data", data, "--receipts", receipts).status, 0);
  const [receipt] = decodeReceiptFile(readFileSync(receipts));
  assert.ok(receipt);
  const forged = Uint8Array.from(receipt);
  forged[forged.length - 1] = (forged[forged.length - 1] as number) ^ 1;
  writeFileSync(receipts, encodeReceiptFile([forged]));
  const refused = await ecp("release", receipts, "--config", config);
  assert.equal(refused.status, 1, refused.error);
  assert.match(refused.out, /REFUSED \[receipt-invalid\]/);
  assert.equal((await client.hello()).through, 0);

  writeFileSync(receipts, encodeReceiptFile([receipt]).subarray(0, 50));
  assert.equal((await ecp("release", receipts, "--config", config)).status, 65);
  writeFileSync(receipts, "no receipts");
  assert.equal((await ecp("release", receipts, "--config", config)).status, 65);
  assert.equal((await ecp("release", join(folder, "none"), "--config", config)).status, 66);
  assert.equal((await client.hello()).through, 0);
});
