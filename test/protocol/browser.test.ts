// protocol/ is pure: bundled for a browser it decodes and verifies where no Node global exists.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import vm from "node:vm";
import { build } from "esbuild";
import { vectorFiles } from "../vectors/generate.ts";

const root = path.join(import.meta.dirname, "../..");

/** The part that runs in the browser; `vectors` and `report` are put into its global scope. */
const program = `
import * as ed25519 from "@noble/ed25519";
import { sha256, sha512 } from "@noble/hashes/sha2.js";
import { verifyCose } from "./protocol/cose-sign1.ts";
import { decodeReceipt } from "./protocol/receipt.ts";
import { decodeRecord } from "./protocol/record.ts";
import { vetPublicKey } from "./protocol/public-key.ts";
import { Refusal } from "./protocol/refusal.ts";
EXTRA
ed25519.hashes.sha512 = sha512;
const verify = (key, message, signature) => ed25519.verify(signature, message, key, { zip215: false });
const bytesOf = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const hexOf = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
for (const { file, name, hex, key } of JSON.parse(vectors)) {
  try {
    vetPublicKey(bytesOf(key));
    const message = file === "record.json" ? decodeRecord(bytesOf(hex), sha256) : decodeReceipt(bytesOf(hex));
    verifyCose(message.cose, bytesOf(key), verify);
    report(file, name, "ok", message.digest ? hexOf(message.digest) : "");
  } catch (error) {
    report(file, name, error instanceof Refusal ? error.reason : String(error), "");
  }
}`;

async function bundle(extra: string): Promise<string> {
  const result = await build({
    stdin: { contents: program.replace("EXTRA", extra), resolveDir: root, loader: "ts" },
    bundle: true,
    write: false,
    platform: "browser",
    format: "iife",
    target: "es2024",
    logLevel: "silent",
  });
  return (result.outputFiles[0] as { text: string }).text;
}

test("every module of protocol/ is bundled for the browser, and runs as it is there: records and receipts verify", async () => {
  const modules = readdirSync(path.join(root, "protocol")).filter((name) => name.endsWith(".ts"));
  assert.ok(modules.length > 10, `${modules.length} modules`);
  const text = await bundle(
    modules
      .map((name, i) => `import * as part${i} from "./protocol/${name}"; globalThis.part${i} = part${i};`)
      .join("\n"),
  );
  const vectors = ["record.json", "receipt.json"].flatMap((file) =>
    (vectorFiles().get(file)?.vectors ?? []).map((vector) => ({ file, ...vector })),
  );
  const outcomes = new Map<string, string[]>();
  // A bare context: the language, and of what browsers add only text encoding. No Buffer, process, require, crypto, timers.
  const context = vm.createContext({
    TextEncoder,
    TextDecoder,
    vectors: JSON.stringify(vectors),
    report: (file: string, name: string, ...outcome: string[]) => outcomes.set(`${file} ${name}`, outcome),
  });
  assert.equal(
    vm.runInContext("typeof Buffer + typeof process + typeof require + typeof crypto", context),
    "undefined".repeat(4),
  );
  vm.runInContext(text, context);
  for (const { file, name, expect, meaning } of vectors) {
    const digest = (meaning as { digest?: string } | undefined)?.digest ?? "";
    assert.deepEqual(outcomes.get(`${file} ${name}`), [expect, digest], `${file}: ${name}`);
  }
  console.log(`in a bare context: ${outcomes.size} vectors, bundle of ${text.length} bytes`);
  assert.ok(outcomes.size > 50, `${outcomes.size}`);
});

test("control: with a node: import the bundle for the browser fails", async () => {
  await assert.rejects(bundle(`import "node:crypto";`), /Could not resolve "node:crypto"/);
});

test("no module of protocol/ reads a clock, draws a random number or touches a global of Node", () => {
  const banned =
    /\b(Date\.now|new Date|Math\.random|performance|process|Buffer|setTimeout|setInterval|require|globalThis)\b/;
  const modules = readdirSync(path.join(root, "protocol")).filter((name) => name.endsWith(".ts"));
  for (const name of modules) {
    const code = readFileSync(path.join(root, "protocol", name), "utf8").replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
    assert.doesNotMatch(code, banned, name);
  }
  assert.match("const at = Date.now();", banned, "control");
});
