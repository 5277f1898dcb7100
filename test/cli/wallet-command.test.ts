import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createConnection, createServer } from "node:net";
import path from "node:path";
import { after, beforeEach, test } from "node:test";
import { walletNodeFlags } from "../../cli/ecp-wallet-run.ts";
import { frameOf } from "../../platform/framed-channel.ts";
import { encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { encodeWalletRequest, WalletRefusal } from "../../protocol/wallet-message.ts";
import { encodeCommit } from "../../wallet/journal-block.ts";
import { unlockSeed } from "../../wallet/keystore.ts";
import { meterOf, rowAt, startS } from "../wallet/wallet-fixture.ts";
import { passphrase, WalletFolder, type WalletProcess } from "./wallet-process.ts";

const folder = new WalletFolder();
after(() => folder.remove());
beforeEach(() => folder.make({ meters: [meterOf()] }));

/** A data folder of init's own making. */
function fresh(name: string): string {
  const data = path.join(folder.root, name);
  rmSync(data, { recursive: true, force: true });
  return data;
}

test("init makes key, journal and policy for their owner alone; show names the device; neither tells a secret", () => {
  const data = fresh("made");
  const made = folder.command(["init", "--data", data, "--passphrase-file", folder.passphraseFile, "--segments", "3"]);
  assert.equal(made.code, 0, made.stderr);
  assert.match(made.stdout, /^did:key:z6Mk\w+\n$/);
  assert.equal(statSync(data).mode & 0o777, 0o700);
  assert.deepEqual(readdirSync(data).sort(), ["device.key", "journal", "passphrase.tries", "policy.cbor"]);
  for (const file of ["device.key", "passphrase.tries", "policy.cbor", "journal/segment-0000.ecpj"])
    assert.equal(statSync(path.join(data, file)).mode & 0o777, 0o600, file);
  assert.equal(readdirSync(path.join(data, "journal")).length, 3);
  const shown = folder.command(["show", "--data", data]);
  assert.equal(shown.stdout, made.stdout);
  const again = folder.command(["init", "--data", data, "--passphrase-file", folder.passphraseFile]);
  assert.equal(again.code, 73);
  assert.match(again.stderr, /never overwritten/);
  assert.equal(folder.command(["show", "--data", data]).stdout, made.stdout);
  const seed = unlockSeed(readFileSync(path.join(data, "device.key")), Buffer.from(passphrase), "");
  for (const { stdout, stderr } of [made, shown, again])
    for (const secret of [passphrase, seed.toString("hex"), seed.toString("base64")])
      assert.ok(!`${stdout}${stderr}`.includes(secret));
});

test("init that was cut short can be run again", () => {
  const data = fresh("cut");
  mkdirSync(path.join(data, "journal.new"), { recursive: true });
  writeFileSync(path.join(data, "journal.new", "segment-0000.ecpj"), "half");
  assert.equal(
    folder.command(["init", "--data", data, "--passphrase-file", folder.passphraseFile, "--segments", "3"]).code,
    0,
  );
  rmSync(path.join(data, "device.key"));
  assert.equal(folder.command(["init", "--data", data, "--passphrase-file", folder.passphraseFile]).code, 0);
  assert.equal(readdirSync(path.join(data, "journal")).length, 3, "the journal that was there stays");
});

test("wrong usage ends with 64 and says what to do", () => {
  const data = ["--data", folder.data];
  const cases: [string[], RegExp][] = [
    [[], /ecp-wallet init/],
    [["inti", ...data], /there is no command 'inti'; see: ecp-wallet --help/],
    [["run", ...data, "--passhrase-file", "x"], /Unknown option '--passhrase-file'[\s\S]*ecp-wallet --help/],
    [["run"], /run needs --data DIR/],
    [["run", "now", ...data], /'now' is one argument too many/],
    [["init", "--data", fresh("none"), "--segments", "2"], /an integer from 3 to 4096 was expected/],
    [["init", "--data", fresh("none"), "--segments", "many"], /an integer from 3 to 4096/],
    [["run", ...data, "--passphrase-file", folder.passphraseFile, "--socket-mode", "rw"], /an octal mode such as 0660/],
    [
      ["run", ...data, "--passphrase-file", folder.passphraseFile, "--socket-mode", "0988"],
      /an octal mode such as 0660/,
    ],
  ];
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = folder.command(args);
    assert.equal(code, 64, `${args}: ${stderr}`);
    assert.match(stdout + stderr, message);
  }
  assert.equal(folder.command(["--help"]).code, 0);
  assert.match(folder.command(["--version"]).stdout, /^\d+\.\d+\.\d+\n$/);
});

test("what is missing, damaged, wrong or closed to us has its exit code and its sentence", () => {
  const run = (file = folder.passphraseFile) =>
    folder.command(["run", "--data", folder.data, "--socket", folder.socket, "--passphrase-file", file]);
  const wrong = path.join(folder.root, "wrong");
  writeFileSync(wrong, "correct horse\n", { mode: 0o600 });
  const expect = (code: number, message: RegExp, file?: string): void => {
    const ended = run(file);
    assert.equal(ended.code, code, ended.stderr);
    assert.match(ended.stderr, message);
    assert.doesNotMatch(ended.stderr, / at .*\.(ts|cjs):/, "no stack");
    assert.doesNotMatch(ended.stderr, /horse/);
  };
  expect(77, /the passphrase does not open .*device\.key/, wrong);
  expect(77, /cannot read the passphrase file .*nowhere/, path.join(folder.root, "nowhere"));
  writeFileSync(wrong, "\n");
  expect(77, /the passphrase is empty/, wrong);
  writeFileSync(wrong, "x".repeat(1_025));
  expect(77, /more than 1024 bytes/, wrong);
  chmodSync(wrong, 0o640);
  expect(77, /has mode 0640, so others can read it; do: chmod 600/, wrong);
  const policy = path.join(folder.data, "policy.cbor");
  writeFileSync(policy, "x");
  expect(65, /policy\.cbor/);
  rmSync(policy);
  expect(66, /policy\.cbor is not there/);
  folder.make();
  const segment = path.join(folder.data, "journal", "segment-0000.ecpj");
  const foreign = Buffer.from(encodeCbor(new Map([[4, "a state of another kind"]])));
  const header = { segment: 0, generation: 1, block: 0, commitNumber: 0, records: 0, pendingRows: 0, epoch: 1 };
  const rest = { firstSequence: 1, releasedEpoch: 1, releasedThrough: 0, previousHash: new Uint8Array(32) };
  const whole = readFileSync(segment);
  encodeCommit({ ...header, ...rest }, foreign).copy(whole);
  writeFileSync(segment, whole);
  expect(65, /journal cannot be used: .*other software wrote them/);
  writeFileSync(segment, Buffer.alloc(statSync(segment).size));
  expect(65, /begins with a whole commit/);
  rmSync(path.join(folder.data, "journal"), { recursive: true });
  expect(65, /no journal in .*'ecp-wallet init' makes one/);
  folder.make();
  writeFileSync(path.join(folder.data, "device.key"), "x");
  expect(65, /device\.key/);
  rmSync(folder.data, { recursive: true });
  expect(66, /device\.key is not there; 'ecp-wallet init/);
});

test("the hardened process runs under the flags, and says so", async () => {
  const wallet = folder.run();
  const client = await folder.client(wallet);
  const hello = await client.hello();
  assert.equal(hello.permission, true);
  assert.equal(hello.jitless, true);
  assert.equal(hello.uid, process.getuid?.());
  const line = readFileSync(`/proc/${wallet.pid}/cmdline`, "utf8").split("\0");
  for (const flag of walletNodeFlags({ program: "x", data: "x", socket: ["x"], readable: [] }))
    if (!flag.includes("=x")) assert.ok(line.includes(flag), flag);
  assert.ok(!line.some((argument) => argument.includes(passphrase)));
  client.close();
  await wallet.end("SIGTERM");
});

const probe = `
const tries = {
  passwd: () => require("node:fs").readFileSync("/etc/passwd"),
  home: () => require("node:fs").readdirSync(require("node:os").homedir()),
  beside: () => require("node:fs").readFileSync(process.argv[2] + "/../beside"),
  write: () => require("node:fs").writeFileSync(process.argv[2] + "/../other", "x"),
  program: () => require("node:fs").writeFileSync(process.argv[1], "x"),
  spawn: () => require("node:child_process").spawnSync("true"),
  worker: () => new (require("node:worker_threads").Worker)("0", { eval: true }),
  addon: () => process.dlopen({ exports: {} }, process.argv[2] + "/x.node"),
  inspector: () => require("node:inspector").open(0),
  sqlite: () => require("node:sqlite"),
  wasm: () => new WebAssembly.Module(new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0])),
  intrinsics: () => { "use strict"; Array.prototype.map = 1; },
  own: () => require("node:fs").readFileSync(process.argv[2] + "/policy.cbor"),
  ownWrite: () => require("node:fs").writeFileSync(process.argv[2] + "/new", "x"),
};
const done = {};
for (const [name, act] of Object.entries(tries)) {
  try { const made = act(); done[name] = made && made.error ? made.error.code : "allowed"; }
  catch (error) { done[name] = error.code || error.name; }
}
console.log(JSON.stringify(done));
`;

test("under those flags no other file, no process, worker, addon, debugger, database or WebAssembly can be had", () => {
  const program = path.join(folder.root, "probe.cjs");
  writeFileSync(program, probe);
  writeFileSync(path.join(folder.root, "beside"), "x");
  const flags = walletNodeFlags({ program, data: folder.data, socket: [folder.socket], readable: [] });
  const tried = (list: readonly string[]): Record<string, string> => {
    const { stdout, stderr } = spawnSync(process.execPath, [...list, program, folder.data], { encoding: "utf8" });
    assert.ok(stdout, stderr);
    return JSON.parse(stdout) as Record<string, string>;
  };
  const { own, ownWrite, ...others } = tried(flags);
  assert.deepEqual([own, ownWrite], ["allowed", "allowed"], "its own folder it can");
  for (const [name, outcome] of Object.entries(others)) assert.notEqual(outcome, "allowed", name);
  assert.equal(others.passwd, "ERR_ACCESS_DENIED");
  assert.equal(others.spawn, "ERR_ACCESS_DENIED");
  const control = tried([]);
  for (const name of ["passwd", "beside", "spawn", "worker", "sqlite", "wasm"])
    assert.equal(control[name], "allowed", name);
});

test("a path with a star, which would open its neighbours, is refused; one with a comma opens only itself", async () => {
  const program = path.join(import.meta.dirname, "sample-program.ts");
  const flagsOf = (data: string): string[] => walletNodeFlags({ program, data, socket: [], readable: [] });
  assert.throws(() => flagsOf(`${folder.root}/*`), /a path without \* was expected/);
  const other = path.join(folder.root, "starred");
  writeFileSync(other, "");
  const sees = (flags: string[]): string => {
    const asked = `process.stdout.write(String(process.permission.has("fs.write", ${JSON.stringify(other)})))`;
    return spawnSync(process.execPath, [...flags, "-e", asked], { encoding: "utf8" }).stdout;
  };
  const comma = path.join(folder.root, `x,${other}`);
  mkdirSync(comma, { recursive: true });
  assert.equal(sees(flagsOf(comma)), "false");
  const star = flagsOf("/DATA").map((flag) => flag.replace("/DATA", path.join(folder.root, "star*")));
  assert.equal(sees(star), "true", "control: what Node makes of a star");
});

test("of several wallets started at once on one folder, one runs", async () => {
  for (let round = 0; round < 3; round++) {
    const wallets = Array.from({ length: 4 }, (_, i) => folder.run(["--socket", path.join(folder.root, `${i}.sock`)]));
    const refused = new Set<WalletProcess>();
    await new Promise<void>((resolve, reject) => {
      for (const wallet of wallets)
        wallet.ended.then(({ code, signal, stderr }) => {
          if (signal === "SIGKILL") return;
          if (code !== 69) reject(new Error(stderr));
          if (refused.add(wallet).size === 3) resolve();
        }, reject);
    });
    const [alive, ...others] = wallets.filter((wallet) => !refused.has(wallet));
    assert.equal(others.length, 0);
    // Round by round it leaves its lock behind, as after a power cut.
    await alive?.end("SIGKILL");
  }
});

test("a second wallet is refused while the first runs, also where the first one's socket has another path", async () => {
  const wallet = folder.run();
  const client = await folder.client(wallet);
  for (const socket of [folder.socket, path.join(folder.root, "other.sock")]) {
    const args = ["run", "--data", folder.data, "--socket", socket, "--passphrase-file", folder.passphraseFile];
    const { code, stderr } = folder.command(args);
    assert.equal(code, 69);
    assert.match(stderr, /another wallet runs on .*; stop it first/);
  }
  assert.ok((await client.hello()).nextSequence > 1, "the first goes on");
  client.close();
  await wallet.end("SIGTERM");
});

test("SIGTERM, SIGINT and the end of the parent's pipe end it cleanly: exit 0, no socket left, nothing lost", async () => {
  let sealed = 0;
  for (const how of ["SIGTERM", "SIGINT", "pipe"] as const) {
    const wallet = folder.run(how === "pipe" ? ["--exit-with-parent"] : [], ["pipe", "pipe", "pipe"]);
    const client = await folder.client(wallet);
    await client.seal({ meter: 0, plan: 0, slotS: 1, codes: [2, 4], rows: [rowAt(startS + sealed++)] });
    if (how === "pipe") wallet.child.stdin?.end();
    else wallet.child.kill(how);
    const { code, stderr } = await wallet.ended;
    assert.equal(code, 0, how);
    assert.ok(!existsSync(folder.socket) && !existsSync(path.join(folder.data, "wallet.lock")), how);
    for (const secret of [passphrase, Buffer.from(folder.seed).toString("hex")]) assert.ok(!stderr.includes(secret));
    client.close();
  }
  const wallet = folder.run();
  const client = await folder.client(wallet);
  const { nextSequence } = await client.hello();
  const { records } = await client.read(1, nextSequence - 1);
  assert.equal(records.length, 10, "four starts, three readings, three stops");
  client.close();
  await wallet.end("SIGTERM");
});

test("the socket: too long a path, a file that is none, another's, a stale one, its mode", async () => {
  const run = (socket: string) =>
    folder.command(["run", "--data", folder.data, "--socket", socket, "--passphrase-file", folder.passphraseFile]);
  const long = run(path.join(folder.root, "s".repeat(108)));
  assert.equal(long.code, 69);
  assert.match(long.stderr, /longer than 107 bytes.*choose a shorter --socket/);
  const file = path.join(folder.root, "precious");
  writeFileSync(file, "precious");
  const taken = run(file);
  assert.equal(taken.code, 69);
  assert.match(taken.stderr, /precious is there and is no socket/);
  assert.equal(readFileSync(file, "utf8"), "precious", "and it is still there");
  const other = createServer((peer) => peer.resume());
  await new Promise<void>((resolve) => other.listen(folder.socket, resolve));
  const busy = spawn(folder.program, [
    "run",
    "--data",
    folder.data,
    "--socket",
    folder.socket,
    "--passphrase-file",
    folder.passphraseFile,
  ]);
  assert.equal((await folder.started(busy).ended).code, 69);
  await new Promise((resolve) => other.close(resolve));
  const killed = folder.run(["--socket-mode", "0660"]);
  (await folder.client(killed)).close();
  assert.equal(statSync(folder.socket).mode & 0o777, 0o660);
  await killed.end("SIGKILL");
  assert.ok(existsSync(folder.socket), "a killed wallet leaves its socket");
  const next = folder.run();
  (await folder.client(next)).close();
  assert.equal(statSync(folder.socket).mode & 0o777, 0o600);
  await next.end("SIGTERM");
});

test("started through a link, and in a folder whose path no socket could have", async () => {
  const link = path.join(folder.root, "link");
  rmSync(link, { force: true });
  symlinkSync(folder.program, link);
  const data = path.join(folder.root, "d".repeat(120));
  rmSync(data, { recursive: true, force: true });
  const init = spawnSync(link, ["init", "--data", data, "--segments", "3", "--passphrase-file", folder.passphraseFile]);
  assert.equal(init.status, 0);
  const args = ["run", "--data", data, "--socket", folder.socket, "--passphrase-file", folder.passphraseFile];
  const wallet = folder.started(spawn(link, args, { stdio: ["ignore", "pipe", "pipe"] }));
  (await folder.client(wallet)).close();
  assert.equal((await wallet.end("SIGTERM")).code, 0);
});

test("a peer that breaks the frame is cut off, one that reads no answers gets no more, and others are served", async () => {
  const wallet = folder.run();
  const client = await folder.client(wallet);
  const { nextSequence } = await client.hello();
  const broken = createConnection(folder.socket);
  broken.write(Uint8Array.from([0xff, 0xff, 0xff, 0xff]));
  await new Promise((resolve) => broken.once("close", resolve));
  const deaf = createConnection(folder.socket);
  deaf.pause();
  deaf.on("error", () => undefined);
  const request = Buffer.from(frameOf(encodeWalletRequest(1, { type: "read", from: 1, to: nextSequence })));
  const many = Buffer.concat(Array.from({ length: 5_000 }, () => request));
  for (let i = 0; i < 20; i++) deaf.write(many);
  for (let i = 0; i < 5; i++) {
    const [sequence] = (await client.seal({ meter: 0, plan: 0, slotS: 1, codes: [2, 4], rows: [rowAt(startS + i)] }))
      .sequences;
    assert.equal(sequence, nextSequence + i);
  }
  const resident = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${wallet.pid}/status`, "utf8"))?.[1];
  assert.ok(Number(resident) < 150_000, `${resident} KiB resident with 100,000 requests unread`);
  await assert.rejects(
    client.seal({ meter: 1, plan: 0, slotS: 1, codes: [2], rows: [{ timeS: 1, status: 0, values: [1] }] }),
    WalletRefusal,
  );
  deaf.destroy();
  client.close();
  assert.equal((await wallet.end("SIGTERM")).code, 0);
});

test("a damaged block behind the tail is found by the check in the background, told and sealed", async () => {
  const first = folder.run();
  const before = await folder.client(first);
  for (let i = 0; i < 5; i++)
    await before.seal({ meter: 0, plan: 0, slotS: 1, codes: [2, 4], rows: [rowAt(startS + i)] });
  before.close();
  await first.end("SIGKILL");
  const segment = path.join(folder.data, "journal", "segment-0000.ecpj");
  const bytes = readFileSync(segment);
  bytes.fill(1, 3 * 4_096, 4 * 4_096);
  writeFileSync(segment, bytes);
  const wallet = folder.run();
  const told = new Promise<void>((resolve) => {
    let said = "";
    wallet.child.stderr?.on("data", (text: string) => {
      said += text;
      if (said.includes("records of the journal are damaged")) resolve();
    });
  });
  const client = await folder.client(wallet);
  await told;
  const { nextSequence } = await client.hello();
  const { records } = await client.read(nextSequence - 1, nextSequence - 1);
  assert.match(
    Buffer.from(records[0]?.[1] as Uint8Array).toString("latin1"),
    /segment 0, blocks 3-3: commits 3-3 missing/,
  );
  client.close();
  assert.equal((await wallet.end("SIGTERM")).code, 0);
});
