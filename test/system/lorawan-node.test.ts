// A full node's process between mosquitto and a store: killed in the middle of a packet, it goes on where it was.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import mqtt from "mqtt";
import { SchcSender } from "../../agent/schc-sender.ts";
import { decodeLoraReceipt } from "../../protocol/lora-receipt.ts";
import { receiptPort } from "../../protocol/lorawan.ts";
import { DeviceFixture } from "../fullnode/device-fixture.ts";
import { application, chirpStackUp, packetOfRecord } from "../fullnode/lorawan-fixture.ts";
import { Mosquitto, mosquittoMissing } from "./mosquitto-fixture.ts";
import { eventually } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";

if (mosquittoMissing) console.log(`skipped: ${mosquittoMissing}`);
const devEui = "70b3d57ed0061234";
const port = 24;

test("kill -9 in the middle of a packet: the node that follows puts it together and answers", {
  skip: mosquittoMissing,
}, async (t) => {
  const scene = new Scene(t);
  const broker = await Mosquitto.prepare(scene);
  await broker.start();
  const data = scene.path("node");
  const request = scene.path("request.cose");
  const device = new DeviceFixture();
  writeFileSync(request, device.request());
  await scene.succeed("ecp-node", "init", "--data", data);
  await scene.succeed("ecp-node", "enrol", request, "--data", data, "--dev-eui", devEui);

  const password = readFileSync(broker.passwordFile, "utf8").trim();
  const { username } = broker;
  const client = await mqtt.connectAsync({
    host: "127.0.0.1",
    port: broker.port,
    username,
    password,
    reconnectPeriod: 0,
  });
  t.after(() => client.end(true));
  await client.subscribeAsync(`application/${application}/device/+/command/down`);
  const commands: { fPort: number; data: string }[] = [];
  client.on("message", (_topic, payload) => commands.push(JSON.parse(`${payload}`)));

  const start = async () => {
    const from = ["--lorawan-broker", `mqtt://127.0.0.1:${broker.port}`, "--lorawan-application", application];
    const as = ["--lorawan-user", username, "--lorawan-password-file", broker.passwordFile];
    const run = ["run", "--data", data, "--json", "--exit-with-parent", "--listen", "127.0.0.1:0"];
    const node = scene.start("ecp-node", ...run, "--lorawan", "chirpstack", ...from, ...as);
    await node.event(({ event, state }) => event === "lorawan" && state === "connected");
    return node;
  };
  const up = async (fCnt: number, bytes: Uint8Array) => {
    const { topic, payload } = chirpStackUp(devEui, { fCnt, fPort: port, bytes });
    await client.publishAsync(topic, payload, { qos: 1 });
  };
  const lastFrame = () => {
    const store = new DatabaseSync(join(data, "node.db"), { readOnly: true });
    const row = store.prepare("SELECT f_cnt FROM lorawan_devices").get();
    store.close();
    return row?.f_cnt;
  };

  const sender = SchcSender.begin(port, packetOfRecord(device.reading()));
  const first = await start();
  let fCnt = 0;
  let frame = sender.next(51, 0);
  for (; fCnt < 2 && frame !== undefined && frame !== "no-room"; frame = sender.next(51, 0)) {
    await up(fCnt++, frame.bytes);
    sender.sent(frame, 0);
  }
  await eventually("what has come is in the store", async () => lastFrame() === 1);
  first.signal("SIGKILL");
  await first.ending();
  const second = await start();
  assert.equal(commands.length, 0, "nothing was said of a packet that is not whole");
  for (; frame !== undefined && frame !== "no-room"; frame = sender.next(51, 0)) {
    await up(fCnt++, frame.bytes);
    sender.sent(frame, 0);
  }
  assert.ok(fCnt > 2);
  const stored = await second.event(({ event }) => event === "stored");
  assert.deepEqual([stored.device, stored.sequence, stored.state], [device.did, 1, "settled"]);
  await eventually("it is answered", async () => commands.length > 0);
  const [receipt, ...more] = commands;
  assert.deepEqual([receipt?.fPort, more.length], [receiptPort, 0]);
  assert.equal(decodeLoraReceipt(new Uint8Array(Buffer.from(receipt?.data ?? "", "base64"))).sequence, 1);
});
