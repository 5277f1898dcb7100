// Where the passphrase comes from, and where it does not.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { after, beforeEach, test } from "node:test";
import { openPty } from "../../simulator/pty.ts";
import { unlockSeed } from "../../wallet/keystore.ts";
import { meterOf } from "../wallet/wallet-fixture.ts";
import { passphrase, WalletFolder } from "./wallet-process.ts";

const folder = new WalletFolder();
after(() => folder.remove());
beforeEach(() => folder.make({ meters: [meterOf()] }));

test("a passphrase never comes by the environment; without a source or a terminal there is none", () => {
  const env = { ...process.env, PASSPHRASE: passphrase, ECP_PASSPHRASE: passphrase, ECP_WALLET_PASSPHRASE: passphrase };
  const { code, stderr } = folder.command(["run", "--data", folder.data, "--socket", folder.socket], { env });
  assert.equal(code, 77);
  assert.match(stderr, /give --passphrase-file FILE or --passphrase-fd N/);
});

test("a passphrase file that others may read is taken from systemd's credentials, and from nowhere else", async () => {
  const credentials = path.join(folder.root, "credentials");
  const beside = path.join(folder.root, "credentials-of-others");
  for (const place of [credentials, beside]) {
    mkdirSync(place, { recursive: true });
    writeFileSync(path.join(place, "passphrase"), passphrase);
    chmodSync(path.join(place, "passphrase"), 0o440);
  }
  const args = (file: string) => ["run", "--data", folder.data, "--socket", folder.socket, "--passphrase-file", file];
  const env = { ...process.env, CREDENTIALS_DIRECTORY: credentials };
  const file = path.join(credentials, "passphrase");
  const wallet = folder.started(spawn(folder.program, args(file), { env, stdio: ["ignore", "pipe", "pipe"] }));
  (await folder.client(wallet)).close();
  assert.equal((await wallet.end("SIGTERM")).code, 0);
  assert.equal(folder.command(args(file)).code, 77, "control: the same file without the variable");
  const outside = [
    path.join(beside, "passphrase"),
    path.join(credentials, "..", "credentials-of-others", "passphrase"),
  ];
  for (const other of outside) assert.equal(folder.command(args(other), { env }).code, 77, other);
});

test("a passphrase comes by a descriptor, through the change to the hardened process", async () => {
  const run = `exec ${folder.program} run --data ${folder.data} --socket ${folder.socket} --passphrase-fd`;
  for (const script of [`${run} 3 3< ${folder.passphraseFile}`, `echo '${passphrase}' | ${run} 0`]) {
    const wallet = folder.started(spawn("sh", ["-c", script], { stdio: ["ignore", "pipe", "pipe"] }));
    const client = await folder.client(wallet);
    client.close();
    process.kill(walletPid(), "SIGTERM");
    assert.equal((await wallet.ended).code, 0);
  }
  const both = folder.command(["run", "--data", folder.data, "--passphrase-fd", "3", "--exit-with-parent"]);
  assert.equal(both.code, 64);
  const none = folder.command(["run", "--data", folder.data, "--passphrase-fd", "three"]);
  assert.equal(none.code, 77);
  assert.match(none.stderr, /--passphrase-fd three is not the number of an open descriptor/);
  assert.equal(folder.command(["run", "--data", folder.data, "--passphrase-fd", "99"]).code, 77);
});

/** The process that listens at the socket, whatever started it: by the arguments it was started with. */
function walletPid(): number {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const found = pids.find((pid) => {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return line.includes("serve") && line.includes(folder.data);
    } catch {
      return false; // it has ended meanwhile
    }
  });
  return Number(found);
}

/** Types answers to the prompts of a command that runs on a terminal; gives all it printed there. */
async function onTerminal(args: readonly string[], answers: readonly string[]) {
  const pty = openPty();
  const terminal = openSync(pty.path, constants.O_RDWR | constants.O_NOCTTY);
  let seen = "";
  pty.onData((bytes) => {
    seen += Buffer.from(bytes).toString("utf8");
  });
  const wallet = folder.started(spawn(folder.program, args, { stdio: [terminal, "pipe", "pipe"] }));
  closeSync(terminal);
  const waiting = [...answers];
  wallet.child.stderr?.on("data", (text: string) => {
    const answer = /: $/.test(text) ? waiting.shift() : undefined;
    if (answer !== undefined) pty.write(Buffer.from(answer));
  });
  const ended = await wallet.ended;
  await pty.close();
  return { ...ended, seen };
}

test("a passphrase is typed at a terminal without echo, corrected with backspace, and asked twice when it is new", async () => {
  const data = path.join(folder.root, "typed");
  const init = ["init", "--data", data, "--segments", "3"];
  const differ = await onTerminal(init, ["one\r", "two\r"]);
  assert.equal(differ.code, 64);
  assert.match(differ.stderr, /the two differ; nothing was made/);
  const interrupted = await onTerminal(init, ["one\x03"]);
  assert.equal(interrupted.code, 77);
  assert.ok(!existsSync(path.join(data, "device.key")));
  const made = await onTerminal(init, ["Öx\x7f\x7flösung\r", "lösung\r"]);
  assert.equal(made.code, 0, made.stderr);
  assert.equal(made.seen, "", "nothing was echoed");
  assert.equal(unlockSeed(readFileSync(path.join(data, "device.key")), Buffer.from("lösung"), "").length, 32);
});
