import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { meteringPacketText, readMeteringPacket } from "../../protocol/metering-packet.ts";
import { decimalText } from "../../protocol/quantity.ts";
import { Refusal } from "../../protocol/refusal.ts";
import { randomOfRun } from "./seeded-random.ts";

const root = path.join(import.meta.dirname, "../..");
/** The public sample of the ECP metering packet, as published (test/fixtures/protocol/README.md). */
const sampleText = readFileSync(path.join(root, "test/fixtures/protocol/metering-packet.json"), "utf8").trim();
const sample = JSON.parse(sampleText) as { [name: string]: unknown };
const schema = JSON.parse(readFileSync(path.join(root, "protocol/metering-packet.schema.json"), "utf8")) as {
  required: string[];
  properties: { [name: string]: object };
};
const validate = new Ajv2020({ strict: true, allErrors: true }).compile(schema);
const random = randomOfRun();
console.log(`seed ${random.seed} (ECP_TEST_SEED=${random.seed} repeats this run)`);

/** Rounded to our resolution: the sample's 53.72700119 is a float32 artefact of 53.727. */
const roundedText = sampleText.replaceAll(/:(-?\d+\.\d{3})\d{5}/g, (_all, kept: string) => `:${rounded(kept)}`);
function rounded(thousandths: string): string {
  const whole = new RegExp(`:${thousandths.replace(".", "\\.")}(\\d{5})`).exec(sampleText)?.[1] ?? "0";
  const up = Number(whole) >= 50_000 ? 1 : 0;
  return `${decimalText(Number(thousandths.replace(".", "")) + up, 3)}00000`;
}

test("the public sample reads as integers: 53.72700119 kWh is 53727 Wh", () => {
  const { values, texts } = readMeteringPacket(sample);
  assert.equal(values.get(1), 4_858);
  assert.equal(values.get(2), 53_727);
  assert.equal(values.get(4), 33_395);
  assert.equal(values.get(8), 51_022);
  assert.equal(values.get(13), 712);
  assert.equal(values.get(14), 50_001);
  assert.equal(values.size, 21);
  assert.deepEqual(texts, {
    userData: "User_data_string",
    applicationData: "Application_data_string",
    applicationUid: "Application_UID_string",
    applicationType: "Application_type_string",
    currency: "EUR",
    priceE8: 0,
  });
});

test("written again it has the sample's 27 keys in their order, its zeros and its texts", () => {
  const { values, texts } = readMeteringPacket(sample);
  const written = meteringPacketText(values, texts);
  assert.equal(Object.keys(JSON.parse(written)).length, 27);
  assert.deepEqual(Object.keys(JSON.parse(written)), Object.keys(sample));
  assert.equal(written, roundedText);
  assert.equal(written.match(/:0\.00000000/g)?.length, sampleText.match(/:0\.00000000/g)?.length);
  assert.deepEqual(readMeteringPacket(JSON.parse(written)), { values, texts });
});

test("no value given is the packet of zeros and empty texts", () => {
  const empty = meteringPacketText(new Map());
  assert.equal(empty.match(/:0\.00000000/g)?.length, 22);
  assert.equal(empty.match(/:""/g)?.length, 5);
  assert.ok(validate(JSON.parse(empty)), JSON.stringify(validate.errors));
});

test("one unit is lossless both ways, up to a hundred thousand GWh", () => {
  const codes = [...Array.from({ length: 19 }, (_, i) => i + 1), 36, 37];
  for (let i = 0; i < 500; i++) {
    const span = random.pick([10, 100_000, 10 ** 9, 10 ** 14]);
    const values = new Map(codes.map((code) => [code, random.integer(-span, span)]));
    const texts = {
      ...readMeteringPacket(sample).texts,
      userData: random.pick(['"', "\\", "ä\n", "\u2028"]),
      priceE8: random.integer(0, 10 ** 9),
    };
    const text = meteringPacketText(values, texts);
    assert.deepEqual(readMeteringPacket(JSON.parse(text)), { values, texts });
  }
});

/** Packets that are wrong in one way each; both the reader and the schema have to refuse them. */
const broken: readonly (readonly [name: string, packet: unknown])[] = [
  ["no object", []],
  ["null", null],
  ["a text", sampleText],
  ...Object.keys(sample).map((name): [string, unknown] => [`without ${name}`, { ...sample, [name]: undefined }]),
  ["a 28th key", { ...sample, Extra: 0 }],
  ["a key in other letters", { ...sample, supply_frequency_hz: 50 }],
  ["a number as text", { ...sample, Power_factor: "0.7" }],
  ["a text as number", { ...sample, Currency: 978 }],
  ["null for a number", { ...sample, FREE_VAL_15: null }],
  ["a text of 1025 characters", { ...sample, User_data: "a".repeat(1_025) }],
  ["an energy beyond the exact range", { ...sample, Active_energy_imported_kWh: 1e16 }],
  ["a price beyond the exact range", { ...sample, Energy_price_for_client: 1e9 }],
  ["own __proto__", JSON.parse(`{"__proto__":1,${sampleText.slice(1)}`)],
];

test("a broken packet is refused by the reader and by the JSON Schema, the sample by neither", () => {
  assert.ok(validate(sample), JSON.stringify(validate.errors));
  assert.doesNotThrow(() => readMeteringPacket(sample));
  for (const [name, packet] of broken) {
    assert.throws(() => readMeteringPacket(packet), Refusal, name);
    const json = packet !== null && typeof packet === "object" ? JSON.parse(JSON.stringify(packet)) : packet;
    assert.equal(validate(json), false, `the schema takes: ${name}`);
  }
  assert.ok(broken.length >= 39, `${broken.length}`);
});

test("the JSON Schema has the 27 keys, in order, and no other", () => {
  assert.deepEqual(schema.required, Object.keys(sample));
  assert.deepEqual(Object.keys(schema.properties), Object.keys(sample));
});
