import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { CommandError } from "../../cli/command.ts";
import { hubOf } from "../../cli/hub-configuration.ts";
import { profileOfText } from "../../cli/profile-files.ts";
import { findProfileFile, meterProfiles } from "../../drivers/modbus/profile-catalogue.ts";
import { temporaryFolder } from "../drivers/sdm630-line.ts";

const program = path.join(import.meta.dirname, "../../cli/ecp.ts");
const run = (...args: string[]) =>
  spawnSync(process.execPath, [program, ...args], { encoding: "utf8", timeout: 60_000 });

const own = `id: own-meter
make: Own
models: [Model 1]
evidence: secondary
documents: [A leaflet]
lines: [rtu]
request: { registers_max: 40 }
probe: { address: 0 }
defaults: { function_code: 3, type: uint32 }
registers:
  - { quantity: active-power-import, address: 0x10, unit: kW, scale: 0.001, source: power }
  - { quantity: active-energy-import, address: 18, unit: kWh, scale: 0.01, source: energy, absent: [-1] }
default_quantities: [active-power-import, active-energy-import]
factory: { unit: 1, bauds: [9600], parities: [none] }
`;

const error = (text: string): string => {
  try {
    profileOfText("own.yaml", text);
  } catch (thrown) {
    if (thrown instanceof CommandError) return `${thrown.text.where} ${thrown.text.expected}; got ${thrown.text.got}`;
    throw thrown;
  }
  return "none";
};

test("a profile of one's own: addresses in two forms, scale and unit as one factor, two's complement marks", () => {
  const profile = profileOfText("own.yaml", own);
  const [power, energy] = profile.registers;
  assert.deepEqual([power?.address, power?.unitsPerValue], [16, 1]);
  assert.deepEqual([energy?.address, energy?.unitsPerValue, energy?.absentRaws], [18, 10, [0xffff_ffffn]]);
  assert.equal(profile.energyStepWh, 10);
});

for (const { id } of meterProfiles.filter(({ kind }) => kind === "registers"))
  test(`${id}: its file holds the published schema, and says the same as YAML`, () => {
    const built = meterProfiles.find((profile) => profile.id === id);
    const json = readFileSync(path.join(import.meta.dirname, "../../drivers/modbus/profiles", `${id}.json`), "utf8");
    assert.deepEqual(profileOfText(`${id}.json`, json), built);
    assert.deepEqual(JSON.parse(json), findProfileFile(id));
  });

test("what ecp profile show prints is a file that says the same", () => {
  for (const id of ["cg-em340", "abb-b23", "schneider-iem3155"]) {
    const { stdout, status } = run("profile", "show", id);
    assert.equal(status, 0);
    assert.deepEqual(
      profileOfText(id, stdout),
      meterProfiles.find((profile) => profile.id === id),
    );
  }
  assert.equal(run("profile", "show", "nobodys").status, 66);
});

for (const [name, change, says] of [
  ["an unknown quantity", ["active-power-import, address", "power, address"], /own.yaml:11:17 the name of a quantity/],
  [
    "a unit of another quantity",
    ["unit: kW,", "unit: kWh,"],
    /own.yaml:11:59 a unit of active-power-import: W, kW, MW; got kWh/,
  ],
  ["no unit", [" unit: kW,", ""], /own.yaml:11:\d+ a unit of active-power-import.*got none/],
  ["an address beyond the table", ["0x10", "0xFFFF"], /own.yaml:11:47 an address from 0 to 0xFFFE; got 65535/],
  ["a quantity twice", ["active-energy-import, address", "active-power-import, address"], /12:17 each quantity once/],
  ["a mark wider than the type", ["[-1]", "[0x1FFFFFFFF]"], /own.yaml:12:\d+ a raw value of 32 bits/],
  ["a mark that lost digits", ["[-1]", "[0xFFFFFFFFFFFFFFFF]"], /as a text, in quotes/],
  [
    "a default that no register has",
    ["[active-power-import, ", "[frequency, "],
    /13:22 a quantity that 'registers' has; got frequency/,
  ],
  ["an unknown key", ["make: Own", "maker: Own"], /own.yaml:2:1 one of the keys .*the unknown key 'maker'/],
  ["a scale of nothing", ["scale: 0.001", "scale: 0"], /own.yaml:11:\d+ scale/],
  ["a type that is none", ["type: uint32 }", "type: uint24 }"], /own.yaml:9:\d+ type: one of int16/],
  [
    "more registers than a request",
    ["registers_max: 40", "registers_max: 200"],
    /registers_max: an integer from 4 to 125/,
  ],
] as const)
  test(`${name}: refused with file, line and column`, () => {
    const text = own.replace(change[0], change[1]);
    assert.notEqual(text, own);
    assert.match(error(text), says);
  });

test("a recognition has to be one check that fits its type", () => {
  const check = (text: string): string => error(`${own}recognition:\n  - ${text}\n`);
  assert.equal(check("{ address: 0, between: [45, 65] }"), "none");
  assert.equal(check("{ address: 0, type: ascii, count: 2, starts_with: [{ text: A, model: B }] }"), "none");
  assert.match(check("{ address: 0 }"), /one of equals, between and starts_with/);
  assert.match(check("{ address: 0, type: ascii, starts_with: [{ text: A, model: B }] }"), /a count of registers/);
  assert.match(check("{ address: 0, type: ascii, count: 2, between: [1, 2] }"), /starts_with beside a text/);
});

test("hub.yaml names files of profiles; their ids are their own, and their energy step is the default", async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, "hub.yaml");
  const hub = (profiles: string, more = ""): ReturnType<typeof hubOf> =>
    hubOf(
      file,
      [
        `profiles: [${profiles}]`,
        "wallet: { folder: w }",
        "lines: [{ name: a, tcp: { host: h } }]",
        `meters: [{ name: m, line: a, unit: 1, profile: own-meter${more} }]`,
      ].join("\n"),
    );
  writeFileSync(path.join(folder, "own.yaml"), own);
  writeFileSync(path.join(folder, "taken.yaml"), own.replace("own-meter", "abb-b23"));
  const read = hub("own.yaml");
  assert.equal(read.profileOf("own-meter").make, "Own");
  assert.equal(read.policy.meters[0]?.resolutionWh, 10);
  assert.equal(hub("own.yaml", ", resolution_wh: 7").policy.meters[0]?.resolutionWh, 7);
  const where = (profiles: string): string => {
    try {
      hub(profiles);
    } catch (thrown) {
      if (thrown instanceof CommandError) return `${thrown.text.where} ${thrown.text.got}`;
      throw thrown;
    }
    return "none";
  };
  assert.match(where("own.yaml, taken.yaml"), /hub.yaml:1:22 abb-b23, which is there already/);
  assert.match(where("nowhere.yaml"), /nowhere.yaml/);
});

test("ecp profile check: good with hints, or what is wrong; ecp profile list has every id", async (t) => {
  const file = path.join(await temporaryFolder(t), "own.yaml");
  writeFileSync(file, own);
  const good = run("profile", "check", file);
  assert.equal(good.status, 0, good.stderr);
  assert.match(good.stdout, /good\. own-meter, 2 quantities\.\nNo serial number/);
  writeFileSync(file, own.replace("own-meter", "abb-b23"));
  assert.match(run("profile", "check", file).stderr, /the name of a built-in profile/);
  const { stdout } = run("profile", "list", "--json");
  assert.deepEqual(
    stdout
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { id: string }).id),
    meterProfiles.map(({ id }) => id),
  );
});

test("ecp plan: requests, bytes and milliseconds, for a built-in profile and for a file", async (t) => {
  const plan = (...args: string[]) => JSON.parse(run("plan", "--json", ...args).stdout) as Record<string, unknown>;
  const { plan: requests, ...sum } = plan("--profile", "eastron-sdm630", "--baud", "9600");
  // 37 and 61 characters of 10 bits at 9600 baud, 20 ms turnaround and the profile's 100 ms before each.
  assert.deepEqual(sum, {
    profile: "eastron-sdm630",
    line: "9600 baud, 10 bits a character",
    requests: 2,
    bytes: 98,
    ms: 342.1,
  });
  assert.equal((requests as unknown[]).length, 2);
  const even = plan("--profile", "eastron-sdm630", "--baud", "9600", "--parity", "even", "--quantities", "frequency");
  assert.deepEqual([even.bytes, even.ms], [17, Math.round((17 * 11_000) / 960 + 1200) / 10]);
  const { ms, requests: count } = plan("--profile", "eastron-sdm630", "--tcp");
  assert.deepEqual([ms, count], [undefined, 2]);
  const file = path.join(await temporaryFolder(t), "own.yaml");
  writeFileSync(file, own);
  assert.equal(plan("--profile", file).requests, 1);
  assert.equal(run("plan", "--profile", "nobodys").status, 64);
  assert.equal(run("plan", "--profile", "abb-b23", "--quantities", "storage-power").status, 64);
});
