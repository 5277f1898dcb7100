// docs/meters.md is written from the profiles; docs/adding-a-meter.md's example is what it says.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { profileOfText } from "../../cli/profile-files.ts";
import { ModbusMeter } from "../../drivers/modbus/modbus-meter.ts";
import { createTcpLine } from "../../drivers/modbus/tcp-line.ts";
import { createHousehold } from "../../simulator/household.ts";
import { meterDevice } from "../../simulator/meter-device.ts";
import { SimulatedSlave } from "../../simulator/simulated-slave.ts";
import { serveModbusTcp } from "../../simulator/tcp-slave.ts";
import { temporaryFolder } from "../drivers/sdm630-line.ts";
import { metersDocument, metersPage } from "./meters-document.ts";

const program = path.join(import.meta.dirname, "../../cli/ecp.ts");
const guide = readFileSync(path.join(import.meta.dirname, "../../docs/adding-a-meter.md"), "utf8");
const example = /```yaml\n(id: [\s\S]*?)```/.exec(guide)?.[1] ?? "";

test("docs/meters.md is what the profiles say", () => {
  if (process.env.UPDATE_DOCS === "1") writeFileSync(metersPage, metersDocument());
  assert.equal(readFileSync(metersPage, "utf8"), metersDocument(), "UPDATE_DOCS=1 writes docs/meters.md anew");
});

test("docs/adding-a-meter.md: its commands print what the page shows", async (t) => {
  const folder = await temporaryFolder(t);
  writeFileSync(path.join(folder, "pro380.yaml"), example);
  const shown = [...guide.matchAll(/```console\n\$ ecp (.*)\n([\s\S]*?)```/g)];
  assert.equal(shown.length, 2);
  for (const [, command = "", output] of shown) {
    const { stdout, stderr } = spawnSync(process.execPath, [program, ...command.split(" ")], {
      cwd: folder,
      encoding: "utf8",
      timeout: 60_000,
    });
    assert.equal(stdout, output, `${command}: ${stderr}`);
  }
});

test("docs/adding-a-meter.md: a simulated meter of its profile is read, plausibly and whole", async (t) => {
  const profile = profileOfText("pro380.yaml", example);
  const household = createHousehold(1);
  const options = { unit: 1, household, now: () => Date.UTC(2026, 5, 10, 11), serialNumber: 1 };
  const server = await serveModbusTcp([new SimulatedSlave(meterDevice(profile, options))], {
    host: "127.0.0.1",
    port: 0,
  });
  const line = createTcpLine({ host: "127.0.0.1", port: server.port });
  t.after(async () => {
    await line.close();
    await server.close();
  });
  const { codes, values, status, detail } = await new ModbusMeter(line, profile, 1).read();
  assert.equal(status, 0, detail);
  assert.deepEqual(codes, profile.defaultCodes);
  const volts = codes.flatMap((code, i) => (code >= 20 && code <= 22 ? [values[i] ?? 0] : []));
  assert.ok(volts.length === 3 && volts.every((mV) => mV > 200_000 && mV < 260_000));
});
