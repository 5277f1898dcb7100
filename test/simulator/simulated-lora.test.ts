/** The simulated LoRaWAN in real time: a modem on a pty, gateways over UDP, the network server's events and commands over MQTT. */
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { lstatSync, mkdtempSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import mqtt from "mqtt";
import { createLoraModem, type LoraDownlink } from "../../drivers/lora/modem.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { systemClock } from "../../platform/clock.ts";
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

test("from a serial port to MQTT and back in the window of the same frame; strangers on UDP and MQTT do no harm", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ecp-lora-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const link = join(folder, "modem");
  const lora = await runSimulatedLora({ ...options, link, gateways: 2 });
  t.after(() => lora.close());
  assert.equal(readlinkSync(link), lora.path);
  const [host, port] = lora.brokerAddress.split(":") as [string, string];
  const settings = { host, port: Number(port), protocolVersion: 4, reconnectPeriod: 0 } as const;
  const client = await mqtt.connectAsync(settings);
  t.after(() => client.endAsync(true));
  const events: string[] = [];
  client.on("message", (topic, payload) => {
    events.push(topic.split("/").at(-1) as string);
    if (!topic.endsWith("/up")) return;
    const { devEui } = JSON.parse(payload.toString()).deviceInfo;
    const command = JSON.stringify({ devEui, confirmed: false, fPort: 20, data: "IA==" });
    client.publish(topic.replace("event/up", "command/down"), command);
  });
  await client.subscribeAsync(`application/${lora.world.applicationId}/device/+/event/+`);

  const stranger = createSocket("udp4");
  t.after(() => stranger.close());
  const [udpHost, udpPort] = lora.udpAddress.split(":") as [string, string];
  for (const datagram of ["", "\x02\x00\x00\x00", "\x02\x00\x01\x0012345678{", "\x01\x00\x00\x02", "x".repeat(9_000)])
    stranger.send(Buffer.from(datagram, "latin1"), Number(udpPort), udpHost);

  const modem = createLoraModem({
    openTransport: () => openSerialPort({ path: link, baud: 115_200 }),
    family: "rui3",
    region: "EU868",
    timing: {
      clock: systemClock,
      pause: (ms, signal) =>
        new Promise((resolve) => {
          const timer = setTimeout(resolve, ms);
          signal?.addEventListener("abort", () => {
            clearTimeout(timer);
            resolve();
          });
        }),
    },
  });
  t.after(() => modem.close());
  const downlinks: LoraDownlink[] = [];
  modem.onDownlink((downlink) => downlinks.push(downlink));
  assert.equal((await modem.begin()).devEui, device.devEui);
  assert.deepEqual(await modem.join(), { kind: "joined" });
  assert.deepEqual(await modem.send(100, Uint8Array.of(1, 2, 3)), { kind: "sent" });
  assert.deepEqual(
    downlinks.map(({ port, bytes }) => [port, ...bytes]),
    [[20, 0x20]],
  );
  assert.deepEqual(events.slice(0, 3), ["join", "up", "txack"]);

  const foreign = await mqtt.connectAsync(settings);
  t.after(() => foreign.endAsync(true));
  const closed = new Promise<void>((resolve) => foreign.once("close", () => resolve()));
  foreign.publish(`application/${lora.world.applicationId}/device/${device.devEui}/event/up`, "{}");
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
