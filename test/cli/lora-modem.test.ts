/** `ecp scan` and `ecp lora provision` with simulated modems, each at the end of a pty. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type ModemFamily, modemFamilies } from "../../drivers/lora/modem.ts";
import type { SimulatedModem } from "../../simulator/lora-modem.ts";
import { openPty } from "../../simulator/pty.ts";
import { createRadioWorld } from "../../simulator/radio-world.ts";
import { RealTiming } from "../../simulator/simulator-timing.ts";
import { ecp, startBus, temporaryFolder } from "./simulated-bus-fixture.ts";

const key = "8f1e2d3c4b5a69788796a5b4c3d2e1f0";
const euis = ["--join-eui", "70b3d57ed0000001", "--dev-eui", "01:02:03:04:05:06:07:08"];

function modemAtPty(t: TestContext, family: ModemFamily): { path: string; modem: SimulatedModem } {
  const timing = new RealTiming();
  t.after(() => timing.close());
  const world = createRadioWorld({ timing, random: () => 0.5 });
  const modem = world.modem(family, { hasKeys: false, baud: 0 });
  const pty = openPty();
  t.after(() => pty.close());
  pty.onData((bytes) => modem.receive(bytes));
  modem.onOutput((bytes) => pty.write(bytes));
  return { path: pty.path, modem };
}

test("scan --lora names the modems at several ports; where nothing answers it says so", async (t) => {
  const ports = modemFamilies.map((family) => ({ family, ...modemAtPty(t, family) }));
  const empty = openPty();
  t.after(() => empty.close());
  const serials = [...ports.map(({ path }) => path), empty.path].flatMap((path) => ["--serial", path]);
  const { status, out, error } = await ecp("scan", "--lora", ...serials);
  assert.equal(status, 0, error);
  for (const { family, path, modem } of ports) {
    const line = new RegExp(
      `^${path}: LoRaWAN modem, ${family} at \\d+ 8N1, .*\\d.*, DevEUI ${modem.device.devEui}$`,
      "m",
    );
    assert.match(out, line);
  }
  assert.match(out, new RegExp(`^${empty.path}: no LoRaWAN modem found$`, "m"));
  assert.match(out, /^uplink:\n {2}lora:\n {4}modem: \{ path: "\/dev\/pts\/\d+", family: rui3/m);
  assert.equal((await ecp("scan", "--lora", "--serial", empty.path, "--bauds", "9600")).status, 1);
  assert.equal((await ecp("scan", "--lora", "--tcp", "127.0.0.1:1")).status, 64);
});

test("scan finds a modem where no meter answers, and asks none where one does", async (t) => {
  const { path } = modemAtPty(t, "lora-e5");
  const { link } = await startBus(t, ["eastron-sdm72v2@1"], { baud: 9_600 });
  const quick = ["--units", "1", "--timeout", "60", "--bauds", "9600", "--parities", "none"];
  const { status, out, error } = await ecp("scan", "--serial", path, "--serial", link, ...quick, "--json");
  assert.equal(status, 0, error);
  const [modemLine, meterLine] = JSON.parse(out).lines;
  assert.deepEqual([modemLine.devices, modemLine.modem.family], [[], "lora-e5"]);
  assert.equal(meterLine.devices[0].profile, "eastron-sdm72v2");
  assert.equal(meterLine.modem, undefined);
});

test("provision writes keys into a modem that it recognises; the key is shown nowhere", async (t) => {
  const file = join(temporaryFolder(t), "app.key");
  writeFileSync(file, `${key}\n`, { mode: 0o600 });
  for (const family of ["lora-e5", "rn2483"] as const) {
    const { path, modem } = modemAtPty(t, family);
    const { status, out, error } = await ecp(
      ...["lora", "provision", "--port", path, "--region", "EU868", ...euis, "--app-key-file", file],
    );
    assert.equal(status, 0, error);
    const { devEui, joinEui, appKey } = modem.device;
    assert.deepEqual([devEui, joinEui], ["0102030405060708", "70b3d57ed0000001"]);
    assert.equal(Buffer.from(appKey ?? []).toString("hex"), key);
    assert.match(out, /DevEUI {3}0102030405060708/);
    assert.ok(!`${out}${error}`.toLowerCase().includes(key), "the key is shown nowhere");
  }
});

test("provision refuses what is no key, a file that others may read, a region of another module, and silence", async (t) => {
  const folder = temporaryFolder(t);
  const file = (name: string, content: string, mode = 0o600): string[] => {
    writeFileSync(join(folder, name), content, { mode });
    return ["--app-key-file", join(folder, name)];
  };
  const { path } = modemAtPty(t, "rn2483");
  const at = ["lora", "provision", "--port", path, ...euis];
  const short = await ecp(...at, "--region", "EU868", ...file("short", key.slice(2)));
  assert.equal(short.status, 65);
  assert.ok(!short.error.includes(key.slice(2)), short.error);
  assert.equal((await ecp(...at, "--region", "EU868", ...file("open", key, 0o644))).status, 77);
  const foreign = await ecp(...at, "--region", "AS923", ...file("good", key));
  assert.equal(foreign.status, 1);
  assert.match(foreign.error, /RN2483 is for EU868/);
  assert.equal((await ecp(...at, "--region", "EU433", ...file("good", key))).status, 64);
  const silent = openPty();
  t.after(() => silent.close());
  const none = await ecp(
    ...[
      "lora",
      "provision",
      "--port",
      silent.path,
      "--baud",
      "9600",
      "--region",
      "EU868",
      ...euis,
      ...file("good", key),
    ],
  );
  assert.equal(none.status, 69);
  assert.match(none.error, /no answer at 9600 8N1/);
});
