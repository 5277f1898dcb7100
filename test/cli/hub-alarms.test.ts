// A real agent beside a wallet that says what the test wants: alarms come into the log, the status and the metrics.
import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { readHubFile } from "../../cli/hub-configuration.ts";
import { helloFields } from "../../protocol/wallet-hello.ts";
import { ScriptedWallet, sampleHello } from "../agent/scripted-wallet.ts";
import { freePort, Scene } from "../system/scene-fixture.ts";

test("a journal that fills is told in the log once, first in the status, and in the metrics", async (t) => {
  const scene = new Scene(t);
  const folder = mkdtempSync("/tmp/ecp-h-"); // short: sockets lie in it
  scene.atEnd(() => rmSync(folder, { recursive: true, force: true }));
  const config = join(folder, "hub.yaml");
  writeFileSync(
    config,
    `wallet: { folder: wallet, socket: wallet.sock }
lines:
  - { name: main, tcp: { host: 127.0.0.1, port: 1 } }
meters:
  - { name: house, index: 0, line: main, unit: 1, profile: eastron-sdm630, interval_s: 1 }
`,
  );
  const port = await freePort();
  appendFileSync(config, `metrics: { listen: "127.0.0.1:${port}" }\n`);
  const wallet = new ScriptedWallet(readHubFile(config).configuration.walletSocket);
  await wallet.start();
  scene.atEnd(() => wallet.stop());
  wallet.script(() => helloFields({ ...sampleHello, segments: 10, segmentsInUse: 8 }));
  const agent = scene.start("ecp", "agent", "--config", config, "--no-polling");
  const raised = await agent.event(({ message }) => message === "alarm raised");
  assert.equal(raised.level, "warn");
  assert.deepEqual(
    [raised.kind, raised.subject, raised.todo],
    ["ring-filling", "wallet", "docs/operating.md#ring-filling"],
  );
  assert.match(String(raised.detail), /^8 of 10 segments/);

  const { code, stdout } = await scene.run("ecp", "status", "--config", config, "--no-qr");
  assert.equal(code, 1);
  assert.match(stdout, /^!! ring-filling \(wallet, since .*\): 8 of 10 segments/m);
  assert.ok(stdout.indexOf("!! ring-filling") < stdout.indexOf("Wallet\n"), "before the rest");
  const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  assert.match(metrics, /^ecp_alarms\{kind="ring-filling"\} 1$/m);
  assert.match(metrics, /^ecp_journal_segments_in_use 8$/m);

  // Looked at again, and said once: a scrape does not wait for a look, so the next change is what shows that one has passed.
  wallet.script(() => helloFields({ ...sampleHello, segments: 10, segmentsInUse: 1 }));
  const cleared = await agent.event(({ message }) => message === "alarm cleared", 0, 90_000); // the wallet is asked every 30 s
  assert.equal(cleared.kind, "ring-filling");
  assert.equal(agent.events().filter(({ message }) => message === "alarm raised").length, 1);
  agent.signal("SIGTERM");
  assert.equal((await agent.ending()).code, 0);
});
