// The bundles of this checkout, copied to an empty folder: the whole demo runs there, without node_modules and without our Node in PATH.
import assert from "node:assert/strict";
import { cpSync, existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { projectRoot, runToEnd } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";

test("copied to an empty folder, ecp-demo runs there with whatever Node the system has", async (t) => {
  const scene = new Scene(t);
  const [built, alone] = [scene.path("built"), scene.path("alone")];
  const build = ["esbuild.config.mjs", "--out", built, "--quiet"];
  const made = await runToEnd(process.execPath, build, { cwd: projectRoot });
  assert.equal(made.code, 0, made.stderr);
  cpSync(built, alone, { recursive: true });
  assert.ok(!readdirSync(alone).includes("node_modules"));
  // The PATH of the system's own programs: an old Node, or none.
  const env = { PATH: "/usr/local/bin:/usr/bin:/bin", HOME: scene.folder, TMPDIR: scene.temporary };
  const demo = scene.startCommand("./ecp-demo", ["--for", "5", "--interval", "1", "--json"], { cwd: alone, env });
  assert.deepEqual(
    await demo.ending(),
    { code: 0, signal: null },
    [...demo.stderr, ...demo.stdout.slice(-20)].join("\n"),
  );
  const { summary } = JSON.parse(demo.stdout.at(-1) as string) as { summary: Record<string, number> };
  assert.ok((summary.readings ?? 0) >= 3, JSON.stringify(summary));
  assert.deepEqual([summary.missing, summary.refused, summary.acknowledged], [0, 0, summary.sealed]);
  assert.deepEqual(readdirSync(scene.temporary), []);

  for (const name of ["ecp", "ecp-wallet", "ecp-node", "ecp-demo"]) {
    const version = await runToEnd(path.join(alone, name), ["--version"], { env });
    assert.equal(version.code, 0, version.stderr);
    assert.match(version.stdout, /\d+\.\d+\.\d+\n$/);
    // By hand with the Node that the system has, where it has one.
    const [system] = ["/usr/local/bin/node", "/usr/bin/node"].filter((file) => existsSync(file));
    if (system === undefined) continue;
    const direct = await runToEnd(system, [path.join(alone, `${name}.cjs`), "--version"], { env });
    assert.deepEqual([direct.code, direct.stdout], [0, version.stdout], direct.stderr);
  }
});
