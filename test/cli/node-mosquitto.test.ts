import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import mqtt from "mqtt";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { decodeReceipt } from "../../protocol/receipt.ts";
import { DeviceFixture } from "../fullnode/device-fixture.ts";
import { temporaryFolder } from "../fullnode/node-fixture.ts";
import { ecpNode, startNode } from "./node-process-fixture.ts";

/** Debian's package installs it in /usr/sbin, which is not on every user's path. */
const path = `${process.env.PATH}:/usr/sbin`;
const hasMosquitto = spawnSync("mosquitto", ["-h"], { env: { PATH: path } }).error === undefined;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

/** Starts mosquitto; fulfilled when it listens. */
async function startMosquitto(t: TestContext, folder: string, port: number): Promise<ChildProcess> {
  const configuration = join(folder, "mosquitto.conf");
  const passwords = join(folder, "passwords");
  writeFileSync(passwords, "");
  for (const [user, password] of [
    ["node", "node's secret"],
    ["hub", "hub's secret"],
  ] as const)
    assert.equal(spawnSync("mosquitto_passwd", ["-b", passwords, user, password], { env: { PATH: path } }).status, 0);
  writeFileSync(
    configuration,
    `listener ${port} 127.0.0.1\nallow_anonymous false\npassword_file ${passwords}\nuser ${process.env.USER ?? "root"}\n`,
  );
  const child = spawn("mosquitto", ["-v", "-c", configuration], {
    env: { PATH: path },
    stdio: ["ignore", "pipe", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  let said = "";
  await new Promise<void>((resolve, reject) => {
    const onData = (chunk: Buffer) => {
      said += chunk;
      if (/mosquitto version .* running/.test(said)) resolve();
    };
    child.stderr?.on("data", onData);
    child.stdout?.on("data", onData);
    child.once("exit", (status) => reject(new Error(`mosquitto ended (${status}): ${said}`)));
  });
  return child;
}

test("through mosquitto: MQTT 5 is spoken, a record gets its receipt, also after the broker was away", {
  skip: hasMosquitto ? false : "mosquitto is not installed (apt-get install mosquitto)",
}, async (t) => {
  const folder = temporaryFolder(t);
  const data = join(folder, "node");
  const device = new DeviceFixture();
  writeFileSync(join(folder, "hub.request"), device.request());
  writeFileSync(join(folder, "password"), "node's secret\n", { mode: 0o600 });
  assert.equal(ecpNode("init", "--data", data).status, 0);
  assert.equal(ecpNode("enrol", join(folder, "hub.request"), "--data", data).status, 0);

  const port = await freePort();
  const brokerOptions = ["--broker", `mqtt://127.0.0.1:${port}`, "--username", "node"];
  let broker = await startMosquitto(t, folder, port);
  const node = await startNode(t, data, ...brokerOptions, "--password-file", join(folder, "password"));
  assert.equal((await node.event("connected")).mqtt, "5");

  for (const round of [1, 2]) {
    const client = await mqtt.connectAsync({
      host: "127.0.0.1",
      port,
      username: "hub",
      password: "hub's secret",
      protocolVersion: 5,
      reconnectPeriod: 0,
    });
    client.on("error", () => {});
    t.after(() => client.end(true));
    await client.subscribeAsync(topicOf(device.name, "receipt"), { qos: 1 });
    const receipt = new Promise<number>((resolve) =>
      client.once("message", (_topic, payload) => resolve(decodeReceipt(payload).content.through)),
    );
    await client.publishAsync(topicOf(device.name, "record"), Buffer.from(device.reading().bytes), { qos: 1 });
    assert.equal(await receipt, round);
    await client.endAsync();
    if (round === 2) break;
    const connections = node.events.filter(({ event }) => event === "connected").length;
    broker.kill("SIGKILL");
    await once(broker, "exit");
    await node.event("disconnected");
    broker = await startMosquitto(t, folder, port);
    await node.eventCount("connected", connections + 1);
  }
  node.child.kill("SIGTERM");
  assert.equal(await node.ended, 0);
});
