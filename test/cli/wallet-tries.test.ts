// Wrong passphrases and keys without one, as the real program meets them.
import assert from "node:assert/strict";
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, beforeEach, test } from "node:test";
import { PassphraseTries } from "../../wallet/passphrase-tries.ts";
import { meterOf } from "../wallet/wallet-fixture.ts";
import { WalletFolder, type WalletProcess } from "./wallet-process.ts";

const folder = new WalletFolder();
after(() => folder.remove());
beforeEach(() => folder.make({ meters: [meterOf()] }));

const wrongFile = path.join(folder.root, "wrong");
writeFileSync(wrongFile, "wrong\n", { mode: 0o600 });
const triesFile = path.join(folder.data, "passphrase.tries");
const run = (file: string) => ["run", "--data", folder.data, "--socket", folder.socket, "--passphrase-file", file];

/** Resolves when the wallet says that it waits. */
function waiting(wallet: WalletProcess): Promise<string> {
  let said = "";
  return new Promise((resolve, reject) => {
    wallet.child.stderr?.on("data", (text: string) => {
      said += text;
      if (said.includes("the next try is in")) resolve(said);
    });
    wallet.ended.then(({ stderr }) => reject(new Error(`it ended without a wait: ${stderr}`)), reject);
  });
}

test("after a wrong passphrase the right one waits, and then resets the count", async () => {
  assert.equal(folder.command(run(wrongFile)).code, 77);
  assert.equal(new PassphraseTries(triesFile).count, 1);
  assert.equal(statSync(triesFile).mode & 0o777, 0o600);
  const startedMs = performance.now();
  const wallet = folder.run();
  assert.match(await waiting(wallet), /the passphrase was wrong the last time; the next try is in 1 s/);
  const client = await folder.client(wallet);
  assert.ok(performance.now() - startedMs >= 1_000);
  assert.equal(new PassphraseTries(triesFile).count, 0);
  client.close();
  assert.equal((await wallet.end("SIGTERM")).code, 0);
});

test("kill -9 in the wait gains nothing and costs nothing; SIGTERM ends the wait at once, cleanly", async () => {
  PassphraseTries.prepare(triesFile);
  new PassphraseTries(triesFile).set(9);
  const killed = folder.run();
  assert.match(await waiting(killed), /wrong 9 times in a row; the next try is in 60 s/);
  await killed.end("SIGKILL");
  assert.equal(new PassphraseTries(triesFile).count, 9);
  for (const how of ["SIGTERM", "SIGINT"] as const) {
    const next = folder.run();
    assert.match(await waiting(next), /the next try is in 60 s/);
    const { code, stderr } = await next.end(how);
    assert.equal(code, 0, stderr);
    assert.ok(!existsSync(path.join(folder.data, "wallet.lock")));
    assert.equal(new PassphraseTries(triesFile).count, 9);
  }
  const child = folder.run(["--exit-with-parent"], ["pipe", "pipe", "pipe"]);
  await waiting(child);
  child.child.stdin?.end();
  assert.equal((await child.ended).code, 0, "and so does the end of its parent");
});

test("a key without passphrase is made, served and said aloud only with --insecure", async () => {
  rmSync(folder.data, { recursive: true });
  const data = ["--data", folder.data];
  const both = folder.command(["init", ...data, "--insecure", "--passphrase-file", folder.passphraseFile]);
  assert.equal(both.code, 64);
  assert.ok(!existsSync(folder.data), "and nothing was made");
  const made = folder.command(["init", ...data, "--insecure", "--segments", "3"]);
  assert.equal(made.code, 0, made.stderr);
  assert.match(made.stderr, /the key has no passphrase: whoever reads .*device\.key has it/);
  assert.equal(statSync(path.join(folder.data, "device.key")).mode & 0o777, 0o600);
  assert.equal(folder.command(["show", ...data]).stdout, made.stdout);
  for (const source of [[], ["--passphrase-file", folder.passphraseFile]]) {
    const { code, stderr } = folder.command(["run", ...data, "--socket", folder.socket, ...source]);
    assert.equal(code, 64);
    assert.match(stderr, /has no passphrase, whoever reads it has the key; say --insecure/);
  }
  const wallet = folder.started(folder.spawn(["run", ...data, "--socket", folder.socket, "--insecure"]));
  const client = await folder.client(wallet);
  assert.equal((await client.hello()).keyProtection, "none");
  client.close();
  assert.match((await wallet.end("SIGTERM")).stderr, /the key is not protected/);
  folder.make();
  const protectedKey = folder.command(["run", ...data, "--socket", folder.socket, "--insecure"]);
  assert.equal(protectedKey.code, 64);
  assert.match(protectedKey.stderr, /has a passphrase; leave --insecure away/);
  const client2 = await folder.client(folder.run());
  assert.equal((await client2.hello()).keyProtection, "passphrase", "control");
  client2.close();
});

test("where no folder can be made, init says so at once", () => {
  for (const data of ["/proc/x", "/proc/x/y", path.join(folder.passphraseFile, "below"), folder.passphraseFile]) {
    const { code, stderr } = folder.command(["init", "--data", data, "--passphrase-file", folder.passphraseFile]);
    assert.equal(code, 73, `${data}: ${stderr}`);
    assert.match(stderr, /cannot be made: .*choose another --data/);
  }
  assert.equal(readFileSync(folder.passphraseFile, "utf8").length > 0, true);
});
