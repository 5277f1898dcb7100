// A passphrase that only this machine's TPM gives out: by systemd's credentials, and by tpm2-tools. With swtpm.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { WalletClient } from "../../agent/wallet-client.ts";
import { programFile, type RunningProgram } from "./running-program-fixture.ts";
import { freePort, Scene } from "./scene-fixture.ts";
import { startTcpTpm, tpmToolsMissing } from "./tpm-fixture.ts";

const skip =
  tpmToolsMissing || (existsSync("/usr/bin/systemd-creds") ? false : "no systemd-creds: apt-get install systemd");
if (skip) console.log(`skipped: ${skip}`);

const passphrase = "known to the TPM alone";

/** A TPM of TCP ports, which is what libtss2-tcti-swtpm can reach; its second port lies behind the first. */
async function tpmAt(scene: Scene): Promise<string> {
  const port = await freePort();
  await startTcpTpm(scene, port);
  return `swtpm:host=127.0.0.1,port=${port}`;
}

async function walletWithPassphrase(scene: Scene): Promise<{ data: string; file: string }> {
  const data = scene.path("wallet");
  const file = scene.path("passphrase");
  writeFileSync(file, passphrase, { mode: 0o600 });
  await scene.succeed("ecp-wallet", "init", "--data", data, "--segments", "3", "--passphrase-file", file);
  return { data, file };
}

async function answers(scene: Scene, wallet: RunningProgram): Promise<void> {
  await wallet.event(({ message }) => message === "ready");
  const client = new WalletClient(scene.path("w.sock"));
  assert.equal((await client.hello()).keyProtection, "passphrase");
  client.close();
}

function succeed(command: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): Buffer {
  const { status, stdout, stderr } = spawnSync(command, args, { env });
  assert.equal(status, 0, `${command} ${args.join(" ")}: ${stderr}`);
  return stdout;
}

test("sealed by systemd-creds to the TPM, it opens the key from the credentials folder; another TPM does not give it out", {
  skip,
}, async (t) => {
  const scene = new Scene(t);
  const { data, file } = await walletWithPassphrase(scene);
  const device = await tpmAt(scene);
  const sealed = scene.path("passphrase.cred");
  const tpm = (at: string): string[] => ["--name=passphrase", `--tpm2-device=${at}`];
  succeed("systemd-creds", ["encrypt", "--with-key=tpm2", ...tpm(device), file, sealed]);
  rmSync(file);
  assert.ok(!readFileSync(sealed).includes(passphrase) && !readFileSync(sealed).includes(btoa(passphrase)));
  // What systemd does for LoadCredentialEncrypted=passphrase:….
  const credentials = scene.path("credentials");
  mkdirSync(credentials, { mode: 0o700 });
  succeed("systemd-creds", ["decrypt", ...tpm(device), sealed, `${credentials}/passphrase`]);
  const args = [
    "run",
    "--data",
    data,
    "--socket",
    scene.path("w.sock"),
    "--passphrase-file",
    `${credentials}/passphrase`,
  ];
  const env = { ...scene.env, CREDENTIALS_DIRECTORY: credentials };
  const wallet = scene.startCommand(process.execPath, [programFile("ecp-wallet"), ...args], { env });
  await answers(scene, wallet);
  await wallet.stop();
  const other = await tpmAt(new Scene(t));
  const stolen = spawnSync("systemd-creds", ["decrypt", ...tpm(other), sealed, "-"], { encoding: "utf8" });
  assert.notEqual(stolen.status, 0);
  assert.ok(!stolen.stdout.includes(passphrase));
});

test("sealed by tpm2-tools, it comes by a pipe and touches no disk; another TPM does not load it", {
  skip,
}, async (t) => {
  const scene = new Scene(t);
  const { data, file } = await walletWithPassphrase(scene);
  const env = { ...scene.env, TPM2TOOLS_TCTI: await tpmAt(scene) };
  const [primary, pub, priv, loaded] = ["primary.ctx", "pass.pub", "pass.priv", "pass.ctx"].map((name) =>
    scene.path(name),
  ) as [string, string, string, string];
  const tool = (name: string, args: readonly string[], at = env): Buffer => succeed(`/usr/bin/${name}`, args, at);
  tool("tpm2_createprimary", ["-Q", "-C", "o", "-c", primary]);
  tool("tpm2_create", ["-Q", "-C", primary, "-i", file, "-u", pub, "-r", priv]);
  rmSync(file);
  // Without a resource manager (/dev/tpmrm0 is one) what is loaded stays loaded.
  tool("tpm2_flushcontext", ["-t"]);
  tool("tpm2_load", ["-Q", "-C", primary, "-u", pub, "-r", priv, "-c", loaded]);
  tool("tpm2_flushcontext", ["-t"]);
  const socket = scene.path("w.sock");
  const run = `tpm2_unseal -c "$1" | exec "$2" "$3" run --data "$4" --socket "$5" --passphrase-fd 0`;
  const shell = ["-c", run, "sh", loaded, process.execPath, programFile("ecp-wallet"), data, socket];
  const wallet = scene.startCommand("/bin/sh", shell, { env });
  await answers(scene, wallet);
  const own = succeed("/usr/bin/pgrep", ["-f", `serve --data ${data} `])
    .toString()
    .trim()
    .split("\n");
  assert.equal(own.length, 1);
  process.kill(Number(own[0]), "SIGTERM");
  assert.deepEqual(await wallet.ending(), { code: 0, signal: null });
  const otherEnv = { ...env, TPM2TOOLS_TCTI: await tpmAt(new Scene(t)) };
  tool("tpm2_createprimary", ["-Q", "-C", "o", "-c", primary], otherEnv);
  tool("tpm2_flushcontext", ["-t"], otherEnv);
  const stolen = spawnSync("/usr/bin/tpm2_load", ["-Q", "-C", primary, "-u", pub, "-r", priv, "-c", loaded], {
    env: otherEnv,
  });
  assert.notEqual(stolen.status, 0);
});
