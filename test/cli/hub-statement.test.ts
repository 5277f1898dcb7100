// ecp statement, ecp verify of one, ecp meter replaced: the commands as processes.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { didKeyOf, kidOf } from "../../protocol/public-key.ts";
import { signStatement } from "../../protocol/statement.ts";
import { helloFields } from "../../protocol/wallet-hello.ts";
import { statementFields, WalletRefusal } from "../../protocol/wallet-message.ts";
import { decodePolicy, emptyPolicy, encodePolicy } from "../../wallet/policy.ts";
import { ScriptedWallet, sampleHello } from "../agent/scripted-wallet.ts";
import { keyOfLabel, sha256 } from "../vectors/signature-suite.ts";

const program = join(import.meta.dirname, "../../cli/ecp.ts");
const key = keyOfLabel("wallet key");
const kid = kidOf(key.publicKey, sha256);
const did = didKeyOf(key.publicKey);
const fromS = Date.UTC(2027, 0, 1) / 1_000;

async function ecp(...args: readonly string[]): Promise<{ status: number; out: string; error: string }> {
  const environment = { ...process.env, TZ: "UTC" };
  const child = spawn(process.execPath, [program, ...args], {
    ...{ stdio: ["ignore", "pipe", "pipe"], timeout: 30_000, env: environment },
  });
  const [[status], out, error] = await Promise.all([once(child, "close"), text(child.stdout), text(child.stderr)]);
  return { status, out, error };
}

function hubFolder(t: TestContext): { folder: string; config: string } {
  const folder = mkdtempSync("/tmp/ecp-h-");
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  mkdirSync(join(folder, "wallet"));
  const config = join(folder, "hub.yaml");
  writeFileSync(
    config,
    `wallet: { folder: wallet, socket: wallet.sock }
lines:
  - { name: main, tcp: { host: 127.0.0.1, port: 1 } }
meters:
  - { name: house, index: 0, line: main, unit: 1, profile: eastron-sdm630, power_max_w: 43000, resolution_wh: 10 }
  - { name: barn, index: 1, line: main, unit: 2, profile: eastron-sdm630 }
`,
  );
  return { folder, config };
}

test("ecp statement writes what the wallet signed and tells it; ecp verify holds it against the key", async (t) => {
  const { folder, config } = hubFolder(t);
  const wallet = new ScriptedWallet(join(folder, "wallet.sock"), (request) => {
    if (request.type !== "statement") return helloFields(sampleHello);
    if (request.meter !== 1) return new WalletRefusal("period-not-held", "no good row of meter 0");
    const places = { first: { epoch: 7, sequence: 3 }, last: { epoch: 7, sequence: 90 } };
    const period = { meter: 1, fromS: request.fromS, toS: request.toS };
    const registers = [{ code: 2, stand: 1_234_567, rise: 54_321 }];
    const made = { device: kid, timeS: request.toS, clockState: 2 };
    return statementFields(signStatement({ ...period, ...places, ...made, registers }, key.sign, kid));
  });
  await wallet.start();
  t.after(() => wallet.stop());
  const out = join(folder, "bill.cose");
  const period = ["--from", "2027-01-01", "--to", "2027-02-01T00:00:00+01:00", "--config", config];
  const done = await ecp("statement", "--meter", "barn", ...period, "--out", out);
  assert.equal(done.status, 0, done.error);
  assert.match(done.out, /rose by 54\.321 kWh to 1234\.567 kWh/);
  assert.deepEqual(wallet.requests.at(-1), {
    ...{ type: "statement", meter: 1, fromS, toS: Date.UTC(2027, 0, 31, 23) / 1_000 },
  });
  const good = await ecp("verify", out, "--device", did);
  assert.equal(good.status, 0);
  assert.match(good.out, /^GOOD: signed by did:key:.*\nmeter 1, from 2027-01-01T00:00:00Z to 2027-01-31T23:00:00Z\n/);
  const json = JSON.parse((await ecp("verify", out, "--device", did, "--json")).out);
  assert.equal(json.valid, true);
  assert.deepEqual(json.statement.registers, [
    { register: "active-energy-import", unit: "Wh", stand: 1_234_567, rise: 54_321 },
  ]);
  const bytes = readFileSync(out);
  bytes[60] = (bytes[60] as number) ^ 1;
  const changed = join(folder, "changed.cose");
  writeFileSync(changed, bytes);
  assert.equal((await ecp("verify", changed, "--device", did)).status, 1, "control: a byte changed");
  const refused = await ecp("statement", "--meter", "house", ...period, "--out", join(folder, "none.cose"));
  assert.equal(refused.status, 1);
  assert.match(refused.error, /does not hold the rows/);
  assert.ok(!existsSync(join(folder, "none.cose")));
});

test("ecp statement: what it cannot understand is said before anybody is asked", async (t) => {
  const { config } = hubFolder(t);
  const period = ["--from", "2027-01-01", "--to", "2027-02-01"];
  for (const args of [
    ["--from", "2027-01-01", "--to", "2027-02-01"],
    ["--meter", "house", "--from", "2027-02-30", "--to", "2027-03-01"],
    ["--meter", "house", "--from", "2027-01-01T00:00:00", "--to", "2027-03-01"],
    ["--meter", "house", "--from", "2027-03-01", "--to", "2027-02-01"],
    ["--meter", "house", "--from", "2027-03-01"],
    ["--meter", "nobody", ...period],
  ])
    assert.equal((await ecp("statement", ...args, "--config", config)).status, 64, args.join(" "));
});

test("ecp meter replaced raises the installation, and ecp config apply keeps it", async (t) => {
  const { folder, config } = hubFolder(t);
  const file = join(folder, "wallet/policy.cbor");
  const installations = (): unknown =>
    decodePolicy(readFileSync(file)).meters.map((meter) => [meter.installation, meter.installationReason]);
  writeFileSync(file, encodePolicy(emptyPolicy));
  const unknown = await ecp("meter", "replaced", "house", "--reason", "broken", "--config", config);
  assert.equal(unknown.status, 1);
  assert.match(unknown.error, /config apply/);
  assert.equal((await ecp("config", "apply", "--config", config)).status, 0);
  const limits = decodePolicy(readFileSync(file)).meters.map(({ powerMaxW, resolutionWh }) => [
    powerMaxW,
    resolutionWh,
  ]);
  assert.deepEqual(limits, [
    [43_000, 10],
    [0, 1_000],
  ]);
  const done = await ecp("meter", "replaced", "house", "--reason", "calibration expired", "--config", config);
  assert.equal(done.status, 0);
  assert.match(done.out, /installation 1.*Restart the wallet/);
  assert.equal((await ecp("config", "apply", "--config", config)).status, 0);
  assert.deepEqual(installations(), [
    [1, "calibration expired"],
    [0, ""],
  ]);
  for (const args of [
    ["house"],
    ["house", "--reason", " "],
    ["house", "--reason", "x".repeat(65)],
    ["cellar", "--reason", "x"],
  ])
    assert.equal((await ecp("meter", "replaced", ...args, "--config", config)).status, 64, args.join(" "));
});
