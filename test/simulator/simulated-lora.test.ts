/** The simulated LoRaWAN's real ends: a pty, UDP, a broker. That records go through all of it is shown by test/system/demo-lora. */
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { lstatSync, mkdtempSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import mqtt from "mqtt";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { NotASymlink } from "../../simulator/pty.ts";
import { runSimulatedLora, type SimulatedLoraOptions } from "../../simulator/simulated-lora.ts";

const device = {
  devEui: "70b3d57ed0061234",
  joinEui: "70b3d57ed0000001",
  appKey: "00112233445566778899aabbccddeeff",
};
const options: SimulatedLoraOptions = {
  family: "rui3",
  region: "EU868",
  server: "chirpstack",
  device,
  broker: { host: "127.0.0.1", port: 0 },
};

test("a serial port that answers, a server that survives strangers on UDP, a broker that takes commands and nothing else", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ecp-lora-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const link = join(folder, "modem");
  const lora = await runSimulatedLora({ ...options, link, gateways: 2 });
  t.after(() => lora.close());
  assert.equal(readlinkSync(link), lora.path);
  const port = await openSerialPort({ path: link, baud: 115_200 });
  t.after(() => port.close());
  const said = new Promise<string>((resolve) => port.onData((bytes) => resolve(Buffer.from(bytes).toString())));
  await port.write(Buffer.from("AT\r\n"));
  assert.equal(await said, "OK\r\n");

  const stranger = createSocket("udp4");
  t.after(() => stranger.close());
  const [udpHost, udpPort] = lora.udpAddress.split(":") as [string, string];
  const pullData = "\x02\x12\x34\x02ABCDEFGH";
  for (const datagram of [
    "",
    "\x02\x00\x00",
    "\x02\x00\x01\x0012345678{",
    "\x01\x00\x00\x02",
    "x".repeat(9_000),
    pullData,
  ])
    stranger.send(Buffer.from(datagram, "latin1"), Number(udpPort), udpHost);
  const answers: string[] = [];
  await new Promise<void>((resolve) => {
    stranger.on("message", (answer) => {
      answers.push(answer.toString("hex"));
      if (answer[3] === 4) resolve(); // PULL_ACK
    });
  });
  assert.equal(answers.at(-1), "02123404");

  const [host, brokerPort] = lora.brokerAddress.split(":") as [string, string];
  const settings = { host, port: Number(brokerPort), protocolVersion: 4, reconnectPeriod: 0 } as const;
  const topic = `application/${lora.world.applicationId}/device/${device.devEui}`;
  const client = await mqtt.connectAsync(settings);
  t.after(() => client.endAsync(true));
  const command = JSON.stringify({ devEui: device.devEui, confirmed: false, fPort: 20, data: "IA==" });
  await client.publishAsync(`${topic}/command/down`, command, { qos: 1 });
  assert.equal(lora.world.server.queueLength(device.devEui), 1);
  const closed = new Promise<void>((resolve) => client.once("close", () => resolve()));
  client.publish(`${topic}/event/up`, "{}");
  await closed; // MQTT 3.1.1 §3.3.5: who may not publish is cut off
  await lora.close();
  assert.equal(lstatSync(link, { throwIfNoEntry: false }), undefined);
});

test("what lies at the link's place is left alone, and a taken port is said; nothing stays open", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ecp-lora-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const link = join(folder, "modem");
  writeFileSync(link, "somebody's");
  await assert.rejects(runSimulatedLora({ ...options, link }), NotASymlink);
  const lora = await runSimulatedLora(options);
  t.after(() => lora.close());
  const port = Number(lora.brokerAddress.split(":")[1]);
  await assert.rejects(runSimulatedLora({ ...options, broker: { host: "127.0.0.1", port } }), { code: "EADDRINUSE" });
  await lora.close();
  const again = await runSimulatedLora({ ...options, broker: { host: "127.0.0.1", port } });
  await again.close();
});
