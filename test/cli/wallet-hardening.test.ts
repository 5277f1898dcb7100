// What the hardened process is given and what it leaves behind: environment, memory, core files, executable memory, the socket.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import path from "node:path";
import { after, beforeEach, test } from "node:test";
import { WalletClient } from "../../agent/wallet-client.ts";
import { meterOf, rowAt, startS } from "../wallet/wallet-fixture.ts";
import { WalletFolder, type WalletProcess } from "./wallet-process.ts";

const folder = new WalletFolder();
after(() => folder.remove());
beforeEach(() => folder.make({ meters: [meterOf()] }));

const runArguments = () => [
  "run",
  "--data",
  folder.data,
  "--socket",
  folder.socket,
  "--passphrase-file",
  folder.passphraseFile,
];
const python = "/usr/bin/python3";
const pythonMissing = existsSync(python) ? false : `no ${python}: apt-get install python3`;

async function sealsOne(wallet: WalletProcess, secondS = startS): Promise<void> {
  const client = await folder.client(wallet);
  await client.seal({ meter: 0, plan: 0, slotS: 1, codes: [2, 4], rows: [rowAt(secondS)] });
  client.close();
}

/** Variables of a process, as another one of its user can read them. */
function environmentOf(pid: number): Record<string, string> {
  const text = readFileSync(`/proc/${pid}/environ`, "utf8");
  return Object.fromEntries(
    text.split("\0").flatMap((line) => (line === "" ? [] : [line.split(/=(.*)/s).slice(0, 2)])),
  );
}

test("of the environment only a few names reach it: nothing that changes Node or the loader, and no secret", async () => {
  const hostile = {
    NODE_OPTIONS: "--no-warnings",
    NODE_DEBUG: "fs",
    NODE_EXTRA_CA_CERTS: "/x",
    LD_PRELOAD: "",
    SECRET: "s3cret",
  };
  const kept = { TZ: "Europe/Paris", INVOCATION_ID: "77", CREDENTIALS_DIRECTORY: folder.root };
  const wallet = folder.started(folder.spawn(runArguments(), undefined, { ...process.env, ...hostile, ...kept }));
  (await folder.client(wallet)).close();
  const seen = environmentOf(wallet.pid);
  for (const name of Object.keys(hostile)) assert.equal(seen[name], undefined, name);
  for (const [name, value] of Object.entries(kept)) assert.equal(seen[name], value);
  const malloc = ["MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"];
  const allowed = ["PATH", "HOME", "LANG", "LC_ALL", ...Object.keys(kept), ...malloc];
  assert.deepEqual(
    Object.keys(seen).filter((name) => !allowed.includes(name)),
    [],
  );
  await wallet.end("SIGTERM");
});

test("NODE_OPTIONS has no effect from the launcher on", () => {
  const hook = path.join(folder.root, "hook.cjs");
  writeFileSync(hook, 'process.stderr.write("HOOKED\\n");');
  const env = { ...process.env, NODE_OPTIONS: `--require=${hook}` };
  const control = spawnSync(process.execPath, ["--version"], { env, encoding: "utf8" });
  assert.equal(control.status, 0);
  const hooked = spawnSync(process.execPath, ["-e", "0"], { env, encoding: "utf8" });
  assert.match(hooked.stderr, /HOOKED/, "control: Node by itself obeys it");
  assert.doesNotMatch(folder.command(["show", "--data", folder.data], { env }).stderr, /HOOKED/);
});

test("idle it takes 20 MiB of anonymous memory at most, and argon2's 64 MiB are gone", async () => {
  const data = path.join(folder.root, "real-cost");
  const source = ["--data", data, "--passphrase-file", folder.passphraseFile];
  assert.equal(folder.command(["init", ...source, "--segments", "64"]).code, 0);
  const wallet = folder.started(folder.spawn(["run", ...source, "--socket", folder.socket]));
  (await folder.client(wallet)).close();
  const status = readFileSync(`/proc/${wallet.pid}/status`, "utf8");
  const kib = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]);
  console.log(`anonymous ${kib("RssAnon")} KiB, resident ${kib("VmRSS")} KiB, at most ${kib("VmHWM")} KiB`);
  assert.ok(kib("VmHWM") - kib("VmRSS") > 50_000, "control: argon2 had its 64 MiB");
  assert.ok(kib("RssAnon") <= 20 * 1_024, `${kib("RssAnon")} KiB`);
  await wallet.end("SIGTERM");
});

test("a core file of it holds no memory, and the launcher allows none", async () => {
  const wallet = folder.run();
  (await folder.client(wallet)).close();
  assert.match(readFileSync(`/proc/${wallet.pid}/limits`, "utf8"), /Max core file size +0 +0 /);
  assert.equal(Number.parseInt(readFileSync(`/proc/${wallet.pid}/coredump_filter`, "utf8"), 16), 0);
  await wallet.end("SIGTERM");
  // Where something else starts it, with core files allowed, the filter is still its own doing.
  const direct = [`${folder.program}.cjs`, ...runArguments()];
  const allowed = spawn("sh", ["-c", 'ulimit -c unlimited 2>/dev/null; exec "$@"', "sh", process.execPath, ...direct], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const other = folder.started(allowed);
  (await folder.client(other)).close();
  assert.equal(Number.parseInt(readFileSync(`/proc/${other.pid}/coredump_filter`, "utf8"), 16), 0);
  assert.notEqual(
    Number.parseInt(readFileSync("/proc/self/coredump_filter", "utf8"), 16),
    0,
    "control: the system's default",
  );
  await other.end("SIGTERM");
});

test("crashes leave neither core file nor report", async () => {
  const scratch = path.join(folder.root, "crashes");
  mkdirSync(scratch, { recursive: true });
  const before = readdirSync(folder.data).length;
  for (const signal of ["SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS"] as const) {
    const wallet = folder.started(
      spawn(folder.program, runArguments(), { cwd: scratch, stdio: ["ignore", "pipe", "pipe"] }),
    );
    (await folder.client(wallet)).close();
    assert.equal((await wallet.end(signal)).signal, signal);
  }
  assert.deepEqual(readdirSync(scratch), []);
  const left = readdirSync(folder.data).filter((name) => /core|report/.test(name));
  assert.deepEqual(left, []);
  assert.ok(readdirSync(folder.data).length <= before + 2, "its lock and the count of tries at most");
});

const denyWriteExecute = `
import ctypes, os, sys
# prctl(2): PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: what systemd's MemoryDenyWriteExecute= asks of a recent kernel
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0) != 0:
    sys.stderr.write("no MDWE: " + os.strerror(ctypes.get_errno()))
    sys.exit(99)
os.execv(sys.argv[1], sys.argv[1:])
`;
const mdweMissing =
  pythonMissing ||
  (spawnSync(python, ["-c", denyWriteExecute, "/bin/true"]).status === 0
    ? false
    : "this kernel has no PR_SET_MDWE (6.3)");

test("where no memory may become executable it starts, seals and ends; with a JIT Node dies there", {
  skip: mdweMissing,
}, async () => {
  const args = ["-c", denyWriteExecute, folder.program, ...runArguments()];
  const wallet = folder.started(spawn(python, args, { stdio: ["ignore", "pipe", "pipe"] }));
  await sealsOne(wallet);
  assert.equal((await wallet.end("SIGTERM")).code, 0);
  const loop = "let n = 0; for (let i = 0; i < 1e7; i++) n += i % 7; console.log(n)";
  const control = (flags: string[]) =>
    spawnSync(python, ["-c", denyWriteExecute, process.execPath, ...flags, "-e", loop], { encoding: "utf8" });
  assert.equal(control(["--jitless"]).status, 0);
  const died = control([]);
  assert.ok(died.signal !== null || died.status !== 0, `control: ${died.stdout}${died.stderr}`);
});

const handOver = `
import os, socket, sys
# As systemd does for StandardInput=socket: a listening socket as descriptor 0.
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o620)
listening.listen(8)
sys.stdout.write("listening\\n")
sys.stdout.flush()
os.dup2(listening.fileno(), 0)
os.execv(sys.argv[2], sys.argv[2:])
`;

test("handed a listening socket as its standard input it answers there, and leaves it as it is", {
  skip: pythonMissing,
}, async () => {
  const args = ["run", "--data", folder.data, "--socket-fd", "0", "--passphrase-file", folder.passphraseFile];
  const child = spawn(python, ["-c", handOver, folder.socket, folder.program, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const wallet = folder.started(child);
  await new Promise<void>((resolve) => child.stdout.once("data", () => resolve()));
  // Somebody may ask before the wallet is there: the kernel holds the connection until it accepts.
  const early = createConnection(folder.socket);
  await new Promise<void>((resolve) => early.once("connect", () => resolve()));
  await sealsOne(wallet);
  assert.equal(statSync(folder.socket).mode & 0o777, 0o620, "its mode is systemd's business");
  early.destroy();
  assert.equal((await wallet.end("SIGTERM")).code, 0);
  assert.ok(existsSync(folder.socket), "and so is its file");
  const dead = new WalletClient(folder.socket);
  await assert.rejects(dead.hello());
  dead.close();
});

test("a socket that is handed over excludes what needs the standard input too", () => {
  const base = ["run", "--data", folder.data, "--passphrase-file", folder.passphraseFile];
  const wrong: [string[], RegExp][] = [
    [["--socket-fd", "3"], /0 was expected, the standard input/],
    [["--socket-fd", "0", "--socket", folder.socket], /--socket-fd with --socket: one of the two/],
    [["--socket-fd", "0", "--exit-with-parent"], /--socket-fd with --exit-with-parent: one of the two/],
  ];
  for (const [args, message] of wrong) {
    const { code, stderr } = folder.command([...base, ...args]);
    assert.equal(code, 64, stderr);
    assert.match(stderr, message);
  }
  const fromFd = folder.command(["run", "--data", folder.data, "--socket-fd", "0", "--passphrase-fd", "0"]);
  assert.equal(fromFd.code, 64);
  assert.match(fromFd.stderr, /--socket-fd needs the standard input/);
  const none = folder.command([...base, "--socket-fd", "0"]);
  assert.equal(none.code, 69, "a standard input that is no socket");
  assert.match(none.stderr, /cannot listen at descriptor 0, which must be a listening Unix socket/);
});
