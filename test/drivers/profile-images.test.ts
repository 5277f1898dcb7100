import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { ModbusMeter } from "../../drivers/modbus/modbus-meter.ts";
import { findMeterProfile, meterProfiles } from "../../drivers/modbus/profile-catalogue.ts";
import { createTcpLine } from "../../drivers/modbus/tcp-line.ts";
import { quantityOfCode } from "../../protocol/quantity.ts";
import { imageCases, imageOf, serveImages } from "./register-images.ts";
import { temporaryFolder } from "./sdm630-line.ts";

const tables = meterProfiles.filter(({ kind }) => kind === "registers");
const nameOf = (code: number): string => quantityOfCode(code)?.name ?? `${code}`;

for (const profile of tables) {
  test(`${profile.id}: every register image becomes the integers that were worked out apart`, async (t) => {
    const cases = imageCases(profile.id);
    assert.ok(cases.length >= 7, "edge values are covered");
    const { server } = await serveImages(
      t,
      profile,
      cases.map((item) => imageOf(profile, item)),
    );
    const line = createTcpLine({ host: "127.0.0.1", port: server.port });
    t.after(() => line.close());
    // TCP needs no pause, and the meters here are quick: only the table is under test.
    const quick = { ...profile, gapMs: 0 };
    for (const [i, { name, values = {}, status, left_out: leftOut = [] }] of cases.entries()) {
      const everything = { ...quick, defaultCodes: profile.codes };
      const reading = await new ModbusMeter(line, everything, i + 1).read();
      assert.equal(reading.status, status ?? 0, `${name}: ${reading.detail}`);
      if (status !== undefined) {
        assert.ok(reading.values.every((value) => value === 0));
        continue;
      }
      const got = Object.fromEntries(reading.codes.map((code, n) => [nameOf(code), reading.values[n]]));
      assert.deepEqual(got, values, name);
      const named = await new ModbusMeter(line, quick, i + 1).read({ codes: profile.codes });
      assert.equal(named.status, leftOut.length > 0 ? 4 : 0, `${name}, asked for by name: ${named.detail}`);
    }
  });
}

/** A hub has up to 16 lines. */
const hubs = [tables.slice(0, 9), tables.slice(9)];

for (const [n, some] of hubs.entries())
  test(`hub ${n + 1}, every meter on a line of its own: ecp read --json gives the expected integers`, async (t) => {
    const folder = await temporaryFolder(t);
    const lines: string[] = [];
    const meters: string[] = [];
    assert.ok(tables.length >= 17);
    for (const profile of some) {
      const [ordinary] = imageCases(profile.id);
      const { server } = await serveImages(t, profile, [imageOf(profile, ordinary!)]);
      lines.push(`  - { name: ${profile.id}, tcp: { host: 127.0.0.1, port: ${server.port} } }`);
      meters.push(`  - { name: ${profile.id}, line: ${profile.id}, unit: 1, profile: ${profile.id} }`);
    }
    const file = path.join(folder, "hub.yaml");
    writeFileSync(file, ["wallet: { folder: w }", "lines:", ...lines, "meters:", ...meters, ""].join("\n"));
    const program = path.join(import.meta.dirname, "../../cli/ecp.ts");
    const child = spawn(process.execPath, [program, "read", "--config", file, "--json"], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const [out, error, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
    assert.equal(code, 0, error);
    const readings = out
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { meter: string; status: string; values: Record<string, { value: number }> });
    assert.deepEqual(
      readings.map(({ meter, status }) => [meter, status]),
      some.map(({ id }) => [id, "G"]),
    );
    for (const { meter, values } of readings) {
      const profile = findMeterProfile(meter)!;
      const expected = imageCases(meter)[0]!.values!;
      const got = Object.fromEntries(Object.entries(values).map(([name, { value }]) => [name, value]));
      const names = profile.defaultCodes.map(nameOf);
      assert.deepEqual(got, Object.fromEntries(names.map((name) => [name, expected[name]])), meter);
    }
  });
