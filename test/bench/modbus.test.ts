// The benchmark itself, short: that it runs and tells right from wrong. How quick this machine is just now is not asked.
import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { projectRoot, runToEnd } from "../system/running-program-fixture.ts";

test("benchmark modbus: ours breaks no silence and reads every value right, modbus-serial's own port breaks silences", async (t) => {
  const file = path.join(projectRoot, "bench/modbus.ts");
  const { code, stdout, stderr } = await runToEnd(process.execPath, [file, "--short", "--seed", "1"]);
  assert.equal(code, 0, stderr);
  const { name, seed, holds, figures, control } = JSON.parse(stdout);
  assert.deepEqual({ name, seed, holds }, { name: "modbus", seed: 1, holds: true });
  for (const where of ["At9600", "At9600InPieces", "At115200", "At115200InPieces"]) {
    assert.equal(figures[`ours${where}Violations`], 0);
    assert.equal(figures[`ours${where}Wrong`], 0);
    assert.ok(figures[`ours${where}Silences`] > 0);
    assert.ok(control[`modbusSerial${where}Violations`] > 0);
  }
  assert.equal(figures.meters32Violations + figures.lines4Violations, 0);
  t.diagnostic(`share at 9600 ${figures.oursAt9600Share}, stalled ${figures.stalledPercentMedian} %`);
});
