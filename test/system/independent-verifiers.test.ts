// A record that came all the way (simulated meter, agent, wallet, `ecp export`) is verified by implementations that are not ours.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createPublicKey } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { coseVerify } from "cose-kit";
import { publicKeyOfDid } from "../../protocol/public-key.ts";
import { Scene } from "./scene-fixture.ts";

const python = "/usr/bin/python3"; // Debian's own, which sees Debian's packages
const peer = path.resolve(import.meta.dirname, "../protocol/cose-peer.py");
const missing =
  spawnSync(python, ["-c", "import cbor2, cryptography"]).status === 0
    ? false
    : `${python} has no cbor2 or cryptography: apt-get install python3-cbor2 python3-cryptography`;
if (missing) console.log(`skipped: ${missing}`);

interface Verdict {
  readonly valid: boolean | null;
  readonly reason?: string;
  readonly record?: {
    readonly kind: string;
    readonly sequence: number;
    readonly digest: string;
    readonly epoch: number;
  };
}

async function ourVerdict(scene: Scene, file: string, ...more: string[]): Promise<{ code: number | null } & Verdict> {
  const { code, stdout, stderr } = await scene.run("ecp", "verify", file, "--json", ...more);
  assert.equal(stderr, "");
  return { code, ...(JSON.parse(stdout) as Verdict) };
}

test("an exported record is verified by cose-kit and Python; one changed bit is refused by them and by us", {
  skip: missing,
}, async (t) => {
  const scene = new Scene(t);
  const [data, records] = [scene.path("data"), scene.path("records")];
  await scene.succeed("ecp-demo", "--for", "4", "--interval", "1", "--json", "--data", data);
  const config = path.join(data, "hub.yaml");
  const said = await scene.succeed("ecp", "export", "--config", config, "--out", records);
  assert.match(said, /^\d+ records are in /);
  const did = readFileSync(path.join(records, "device.did"), "utf8").trim();
  const publicKey = publicKeyOfDid(did);
  const x = Buffer.from(publicKey).toString("base64url");
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  const files = readdirSync(records).filter((name) => name.endsWith(".cose"));
  assert.ok(files.length >= 5, `${files.length} records`);

  const readings: string[] = [];
  for (const name of files) {
    const file = path.join(records, name);
    const verdict = await ourVerdict(scene, file);
    assert.equal(verdict.code, 0);
    assert.equal(verdict.valid, true);
    assert.equal(`${verdict.record?.sequence}.cose`, name);
    const bytes = Uint8Array.from(readFileSync(file));
    assert.equal((await coseVerify(bytes, key as never)).isValid, true, `cose-kit: ${name}`);
    if (verdict.record?.kind !== "reading") continue;
    readings.push(file);
    const python = pythonVerify(publicKey, bytes);
    assert.equal(python.status, 0, python.stderr);
    const { sequence, digest, epoch } = JSON.parse(python.stdout) as Record<string, unknown>;
    assert.deepEqual({ sequence, digest, epoch }, pick(verdict.record));
  }
  assert.ok(readings.length >= 2);

  const [file = ""] = readings;
  const bytes = Uint8Array.from(readFileSync(file));
  // Every byte's place says something else: tag, headers, kid, payload, signature. The last bits of payload and signature
  // leave the form whole, so that it is the signature that fails, for all three verifiers.
  const whole = [bytes.length - 1, bytes.length - 67, bytes.length - 64];
  for (const at of [...whole, 0, 3, 8, 16, 24, 40]) {
    const changed = bytes.map((byte, i) => (i === at ? byte ^ 1 : byte));
    const spoilt = path.join(records, "spoilt.bin");
    writeFileSync(spoilt, changed);
    const verdict = await ourVerdict(scene, spoilt);
    assert.deepEqual([verdict.code, verdict.valid], [1, false], `byte ${at}`);
    if (!whole.includes(at)) continue;
    assert.equal(verdict.reason, "signature-invalid", `byte ${at}`);
    assert.equal((await coseVerify(changed, key as never)).isValid, false, `cose-kit, byte ${at}`);
    const { status, stderr } = pythonVerify(publicKey, changed);
    assert.deepEqual([status, stderr], [1, "the signature does not hold\n"], `Python, byte ${at}`);
  }

  // A key that nobody named is neither good nor bad.
  renameSync(path.join(records, "device.did"), path.join(records, "elsewhere"));
  const unknown = await ourVerdict(scene, file);
  assert.deepEqual([unknown.code, unknown.valid, unknown.reason], [2, null, "key-unknown"]);
  assert.equal((await ourVerdict(scene, file, "--device", did)).code, 0);
  assert.equal((await ourVerdict(scene, file, "--device", path.join(records, "elsewhere"))).code, 0);
  const other = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"; // of the did:key specification's examples
  const foreign = await ourVerdict(scene, file, "--device", other);
  assert.deepEqual([foreign.code, foreign.reason], [1, "other-device"]);
  assert.ok(!existsSync(path.join(records, "device.did")), "control: it was asked without the file");
});

function pick(record: NonNullable<Verdict["record"]>): object {
  const { sequence, digest, epoch } = record;
  return { sequence, digest, epoch };
}

function pythonVerify(
  publicKey: Uint8Array,
  bytes: Uint8Array,
): { status: number | null; stdout: string; stderr: string } {
  const input = Buffer.from(bytes).toString("hex");
  return spawnSync(python, [peer, "verify", Buffer.from(publicKey).toString("hex")], { input, encoding: "utf8" });
}
