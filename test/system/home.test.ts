// Plain values for a home over a real mosquitto: from a hub's own agent, and from a full node.
import assert from "node:assert/strict";
import { appendFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import mqtt from "mqtt";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { startNode } from "../cli/node-process-fixture.ts";
import { DeviceFixture } from "../fullnode/device-fixture.ts";
import { Community } from "./community-fixture.ts";
import { Mosquitto, mosquittoMissing } from "./mosquitto-fixture.ts";
import { eventually, type RunningProgram } from "./running-program-fixture.ts";
import { freePort, Scene } from "./scene-fixture.ts";

if (mosquittoMissing) console.log(`skipped: ${mosquittoMissing}`);

/** All that is published for homes, the newest of each topic. */
async function listen(scene: Scene, broker: Mosquitto): Promise<Map<string, string>> {
  const client = await mqtt.connectAsync({
    ...{ host: "127.0.0.1", port: broker.port, username: broker.username, password: "never on a command line" },
  });
  client.on("error", () => {});
  scene.atEnd(() => client.end(true));
  const newest = new Map<string, string>();
  client.on("message", (topic, payload) => newest.set(topic, `${payload}`));
  await client.subscribeAsync(["homeassistant/#", "ecp-home/#"], { qos: 1 });
  return newest;
}

/** What came to the broker from whoever publishes for homes: it must never ask for anything. */
function assertOnlyPublishes(broker: RunningProgram): void {
  assert.ok(broker.stderr.some((line) => /Received PUBLISH from ecp-home-/.test(line)));
  assert.deepEqual(
    broker.stderr.filter((line) => /Received (SUBSCRIBE|UNSUBSCRIBE) from ecp-home-/.test(line)),
    [],
  );
}

test("a hub that is told to shows its readings at home, described for Home Assistant, until it is gone", {
  skip: mosquittoMissing,
}, async (t) => {
  const scene = new Scene(t);
  const home = await Mosquitto.prepare(scene);
  const broker = await home.start();
  const newest = await listen(scene, home);
  const community = await Community.setUp(scene);
  const metricsPort = await freePort();
  appendFileSync(
    community.config,
    `home:
  every_s: 1
  mqtt: { url: "mqtt://127.0.0.1:${home.port}", username: ${home.username}, password_file: ${home.passwordFile} }
metrics: { listen: "${metricsPort}" }
`,
  );
  await community.startMeter();
  const hub = await community.startHub();
  const device = community.device.replace("did:key:", "");
  const topic = (name: string) => `ecp-home/hub/${device}/0/${name}`;
  await eventually("values come", () => newest.has(topic("active-energy-import")));
  const configuration = JSON.parse(
    newest.get(`homeassistant/sensor/ecp_hub_${device}_0_active_energy_import/config`) ?? "null",
  );
  assert.equal(configuration.state_topic, topic("active-energy-import"));
  assert.equal(configuration.device.name, "house");
  assert.equal(newest.get(configuration.availability_topic), "online");
  assert.match(newest.get(topic("active-energy-import")) ?? "", /^[0-9]+\.[0-9]{3}$/);
  const voltage = Number(newest.get(topic("voltage-l1")));
  assert.ok(voltage > 200 && voltage < 260, `${voltage} V`);
  assertOnlyPublishes(broker);

  // Whoever begins to listen later gets descriptions and availability, and waits for values.
  const later = await listen(scene, home);
  await eventually("what is retained comes", () => later.get(configuration.availability_topic) === "online");
  assert.ok(later.has(`homeassistant/sensor/ecp_hub_${device}_0_voltage_l1/config`));

  const metrics = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  assert.match(metrics, /^ecp_meter_good\{meter="house"\} 1$/m);
  assert.match(metrics, /^ecp_alarms\{kind="receipt-withheld"\} 0$/m);
  assert.match(metrics, /^ecp_wallet_connected 1$/m);
  assert.equal((await fetch(`http://127.0.0.1:${metricsPort}/healthz`)).status, 503, "there is no full node");

  hub.signal("SIGTERM");
  await hub.ending();
  await eventually("it is said to be away", () => newest.get(configuration.availability_topic) === "offline");
});

test("a hub that is not told to shows nothing and listens nowhere", { skip: mosquittoMissing }, async (t) => {
  const scene = new Scene(t);
  const home = await Mosquitto.prepare(scene);
  const broker = await home.start();
  const community = await Community.setUp(scene, { broker: home });
  await community.startMeter();
  const hub = await community.startHub();
  await hub.line(/uplink connected/);
  await eventually("records are sent", () => broker.stderr.some((line) => /Received PUBLISH .*\/record/.test(line)));
  assert.deepEqual(
    broker.stderr.filter((line) => /ecp-home|homeassistant/.test(line)),
    [],
  );
});

test("a full node shows the devices that it was told to, and no other", { skip: mosquittoMissing }, async (t) => {
  const scene = new Scene(t);
  const home = await Mosquitto.prepare(scene);
  const broker = await home.start();
  const newest = await listen(scene, home);
  const data = scene.path("node");
  const [shown, hidden] = [new DeviceFixture(), new DeviceFixture()];
  await scene.succeed("ecp-node", "init", "--data", data);
  for (const [i, device] of [shown, hidden].entries()) {
    const request = scene.path(`request-${i}`);
    writeFileSync(request, device.request());
    await scene.succeed("ecp-node", "enrol", request, "--data", data);
  }
  const where = ["--home-broker", `mqtt://127.0.0.1:${home.port}`, "--home-username", home.username];
  const options = [...where, "--home-password-file", home.passwordFile, "--home-device", shown.did];
  const node = await startNode(t, data, "--listen", "127.0.0.1:0", ...options);
  const client = await mqtt.connectAsync({ host: "127.0.0.1", port: node.port, protocolVersion: 4 });
  scene.atEnd(() => client.end(true));
  const deliver = async (device: DeviceFixture, bytes: Uint8Array) =>
    await client.publishAsync(topicOf(device.name, "record"), Buffer.from(bytes), { qos: 1 });
  const row = (timeS: number, energyWh: number, status = 0) => ({
    timeS,
    status,
    values: status === 0 ? [1_500, energyWh] : [],
  });
  const first = shown.reading({ rows: [row(1_800_000_000, 1_000)] });
  const second = shown.reading({ rows: [row(1_800_000_060, 2_000)] });
  await deliver(hidden, hidden.reading().bytes);
  await deliver(shown, second.bytes); // the newest first: what comes later and is older is not shown
  await deliver(shown, first.bytes);
  await deliver(shown, shown.reading({ rows: [row(1_800_000_120, 0, 2)] }).bytes);
  await node.eventCount("stored", 4);
  const energy = `ecp-home/node/${shown.name}/0/active-energy-import`;
  await eventually("values come", () => newest.get(energy) === "2.000");
  assert.equal(newest.get(`ecp-home/node/${shown.name}/0/active-power-import`), "1.500");
  await deliver(shown, shown.reading({ rows: [row(1_800_000_180, 3_000)] }).bytes);
  await eventually("a newer one comes", () => newest.get(energy) === "3.000");
  const description = `homeassistant/sensor/ecp_node_${shown.name}_0_active_energy_import/config`;
  const { availability_topic: availability } = JSON.parse(newest.get(description) ?? "null");
  assert.equal(newest.get(availability), "online");
  assert.deepEqual(
    [...newest].filter(([topic, payload]) => (topic + payload).includes(hidden.name)),
    [],
  );
  assertOnlyPublishes(broker);
  node.child.kill("SIGKILL");
  await eventually("its last will says that it is away", () => newest.get(availability) === "offline");
});
