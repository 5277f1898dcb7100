// hub.yaml with LoRaWAN, from the command line: checked, applied to the wallet's policy, planned, run without its modem.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { readHubFile } from "../../cli/hub-configuration.ts";
import { loraText } from "../../cli/hub-status-lora.ts";
import { helloFields } from "../../protocol/wallet-hello.ts";
import { readFields } from "../../protocol/wallet-message.ts";
import { decodePolicy } from "../../wallet/policy.ts";
import { ScriptedWallet, sampleHello } from "../agent/scripted-wallet.ts";
import { freePort, Scene } from "../system/scene-fixture.ts";

interface Hub {
  readonly scene: Scene;
  readonly folder: string;
  readonly config: string;
}

function hub(t: TestContext, lora: string, more = ""): Hub {
  const scene = new Scene(t);
  const folder = mkdtempSync("/tmp/ecp-h-"); // short: sockets lie in it
  scene.atEnd(() => rmSync(folder, { recursive: true, force: true }));
  mkdirSync(join(folder, "wallet"));
  const config = join(folder, "hub.yaml");
  writeFileSync(
    config,
    `wallet: { folder: wallet, socket: wallet.sock }
lines:
  - { name: main, tcp: { host: 127.0.0.1, port: 1 } }
meters:
  - { name: house, line: main, unit: 1, profile: eastron-sdm630, quantities: [active-energy-import, active-energy-export] }
uplink: { lora: { modem: { path: ${folder}/modem, family: rui3 }, region: EU868${lora} } }
${more}`,
  );
  return { scene, folder, config };
}

test("config check names the modem; config apply gives the wallet slot and batch of these rows", async (t) => {
  const { scene, folder, config } = hub(t, ", slot_s: 300, batch_s: 7200");
  assert.match(
    await scene.succeed("ecp", "config", "check", "--config", config),
    /uplink LoRaWAN EU868 by rui3 at .*modem/,
  );
  await scene.succeed("ecp", "config", "apply", "--config", config);
  const { plans } = decodePolicy(readFileSync(join(folder, "wallet", "policy.cbor")));
  assert.deepEqual(plans, [{ plan: 1, slotS: 300, sealEveryS: 7_200 }]);
});

interface Plan {
  rates: {
    dataRate: number;
    batchS: number;
    packets: number[];
    frames: number;
    airtimeMs: number;
    dutyCycle: number;
    fairUse?: number;
  }[];
}

test("lora plan: frames, airtime and shares at each data rate; another batch by --batch; words for what cannot work", async (t) => {
  const { scene, config } = hub(t, ", fair_use_s_per_day: 30");
  const plan = async (...args: string[]) =>
    JSON.parse(await scene.succeed("ecp", "lora", "plan", "--json", "--config", config, ...args)) as Plan;
  const hourly = await plan("--batch", "3600");
  const [slow, , , , , quick] = hourly.rates;
  // The airtime that docs/lorawan.md and the benchmark speak of: four quarter hours of two energies.
  assert.ok(slow && slow.frames === 4 && slow.airtimeMs <= 9_800 && slow.airtimeMs > 8_000, `${slow?.airtimeMs} ms`);
  assert.ok(quick && quick.frames === 1 && quick.airtimeMs <= 280);
  assert.ok((slow.fairUse as number) > 7 && (quick.fairUse as number) < 0.25);
  assert.ok(Math.abs(slow.dutyCycle - slow.airtimeMs / 36_000) < 0.001);
  const automatic = await plan();
  assert.deepEqual(
    automatic.rates.map(({ batchS }) => batchS / 3_600),
    [24, 24, 6, 6, 1, 1, 1],
  );
  const table = await scene.succeed("ecp", "lora", "plan", "--config", config, "--batch", "3600");
  assert.match(table, /^EU868: rows of 1 meter every 15 min$/m);
  assert.match(table, /^ 0 +SF12\/125 +51 +60 min +\d+ +4 /m);
  assert.match(table, /More than is allowed at data rate 0, 1/);
  const wrong = await scene.run("ecp", "lora", "plan", "--config", config, "--batch", "1000");
  assert.equal(wrong.code, 64);
  const without = hub(t, "");
  writeFileSync(without.config, readFileSync(without.config, "utf8").replace(/^uplink.*$/m, ""));
  assert.equal((await scene.run("ecp", "lora", "plan", "--config", without.config)).code, 78);
});

test("an agent without its modem says so in log, status and metrics; one whose wallet knows nothing of these rows does not start", async (t) => {
  const port = await freePort();
  const { scene, config } = hub(t, "", `metrics: { listen: "127.0.0.1:${port}" }\n`);
  const wallet = new ScriptedWallet(readHubFile(config).configuration.walletSocket);
  await wallet.start();
  scene.atEnd(() => wallet.stop());
  const meters = [{ index: 0, slotS: 60, lastTimeS: 0 }];
  wallet.script(() => helloFields({ ...sampleHello, meters }));
  const refused = await scene.run("ecp", "agent", "--config", config);
  assert.equal(refused.code, 78);
  assert.match(refused.stderr, /no rows for LoRaWAN[\s\S]*ecp config apply/);
  const plans = [{ plan: 1, slotS: 900, sealEveryS: 86_400 }];
  wallet.script(({ type }) =>
    type === "hello" ? helloFields({ ...sampleHello, meters, plans }) : readFields({ records: [] }),
  );
  const agent = scene.start("ecp", "agent", "--config", config);
  const said = await agent.event(({ message }) => message === "lora modem-away");
  assert.equal(said.level, "warn");
  const { code, stdout } = await scene.run("ecp", "status", "--config", config, "--no-qr");
  assert.equal(code, 1);
  assert.match(stdout, /^ {2}uplink +LoRaWAN alone$/m);
  assert.match(stdout, /^ {2}on the way +readable by the LoRaWAN network server$/m);
  assert.match(stdout, /^ {2}lora +.*EU868: THE MODEM DOES NOT ANSWER \(.*goes on in/m);
  assert.match(stdout, /rows every 15 min, batches of 6 h/);
  const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  assert.match(metrics, /^ecp_lora_joined 0$/m);
  assert.match(metrics, /^ecp_lora_frames_total 0$/m);
  assert.match(metrics, /^ecp_lora_airtime_left_seconds\{limit="law"\} \d/m);
  agent.signal("SIGTERM");
  assert.equal((await agent.ending()).code, 0);
});

test("every state of the uplink has its words", () => {
  const text = loraText({
    ...{ condition: "duty-cycle", detail: "36.0 s in the last hour", resumesInMs: 754_000, modem: "rui3, 4.1.1" },
    ...{ region: "EU868", isJoined: true, dataRate: 0, bytesMax: 51, framesSent: 12, bytesSent: 600, joinRequests: 1 },
    ...{ downlinks: 1, downlinksIgnored: 0, receipts: 1, airtimeHourMs: 33_522, airtimeDayMs: 90_000 },
    dutyCycle: { windowMs: 3_600_000, limitMs: 36_000, spentMs: 33_522 },
    fairUse: { windowMs: 86_400_000, limitMs: 30_000, spentMs: 31_000 },
    sessions: [{ port: 20, epoch: 7, sequence: 11, bytes: 150, ageMs: 60_000 }],
    ...{ awaitingReceipt: 2, tooLarge: 1, sinceDownlinkMs: 5_000, sinceStartMs: 1, slotS: 900, batchS: 21_600 },
    isFallback: true,
  });
  assert.match(
    text,
    /^ {2}lora +rui3, 4\.1\.1, EU868: waits: the airtime that the law allows an hour is used up \(36\.0 s in the last hour\), goes on in 13 min$/m,
  );
  assert.match(text, /joined, data rate 0, frames of up to 51 bytes; the last downlink 5 s ago/);
  assert.match(
    text,
    /12 frames up, 1 downlink since the start; airtime 33\.5 s in an hour of 36\.0 s allowed, 2\.5 s left; 90\.0 s in a day of 30\.0 s allowed, 0\.0 s left/,
  );
  assert.match(
    text,
    /record 11 in fragments on port 20 for 60 s; 2 sent and without a receipt yet; 1 record TOO LARGE/,
  );
  assert.match(text, /could not deliver for ten minutes/);
});
