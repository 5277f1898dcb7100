// The LoRaWAN side of full nodes as they run: over mosquitto, and two of them on one PostgreSQL store.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import mqtt from "mqtt";
import { chirpStack } from "../../fullnode/chirpstack.ts";
import { LorawanService, type LorawanServiceParts, type LorawanState } from "../../fullnode/lorawan-service.ts";
import { Registry } from "../../fullnode/registry.ts";
import { systemClock } from "../../platform/clock.ts";
import { createLog } from "../../platform/log.ts";
import { decodeLoraReceipt } from "../../protocol/lora-receipt.ts";
import { receiptPort, recordPort } from "../../protocol/lorawan.ts";
import { Mosquitto, mosquittoMissing } from "../system/mosquitto-fixture.ts";
import { Scene } from "../system/scene-fixture.ts";
import { usePostgres } from "./contract-store.ts";
import type { SealedRecord } from "./device-fixture.ts";
import { application, chirpStackUp, packetOfRecord } from "./lorawan-fixture.ts";
import { NodeFixture } from "./node-fixture.ts";
import { PostgresServer, postgresMissing } from "./postgres-fixture.ts";

const missing = mosquittoMissing || postgresMissing;
if (missing) console.log(`skipped: ${missing}`);
const devEui = "70b3d57ed0061234";

/** ChirpStack as far as a full node sees it: publishes events, hears commands. */
async function startServer(t: TestContext) {
  const scene = new Scene(t);
  const broker = await Mosquitto.prepare(scene);
  await broker.start();
  const address = {
    host: "127.0.0.1",
    port: broker.port,
    username: broker.username,
    password: "never on a command line",
  };
  const client = await mqtt.connectAsync({ ...address, protocolVersion: 5, reconnectPeriod: 0 });
  t.after(() => client.end(true));
  await client.subscribeAsync(`application/${application}/device/+/command/down`);
  const waiting: ((command: Record<string, unknown>) => void)[] = [];
  const commands: Record<string, unknown>[] = [];
  client.on("message", (_topic, payload) => {
    const command = JSON.parse(`${payload}`);
    commands.push(command);
    waiting.shift()?.(command);
  });
  return {
    address,
    commands,
    /** Publishes an uplink and gives the command that answers it. */
    async up(fCnt: number, record: SealedRecord): Promise<Record<string, unknown>> {
      const answered = new Promise<Record<string, unknown>>((resolve) => waiting.push(resolve));
      const { topic, payload } = chirpStackUp(devEui, { fCnt, fPort: recordPort, bytes: packetOfRecord(record) });
      const startMs = performance.now();
      client.publish(topic, payload, { qos: 0 });
      const command = await answered;
      console.log(`uplink answered within ${(performance.now() - startMs).toFixed(1)} ms`);
      return command;
    },
    /** Publishes an event, and comes back when the broker has given it to all who hear it. */
    async deliver(topic: string, payload: Buffer): Promise<void> {
      const listener = await mqtt.connectAsync({ ...address, protocolVersion: 5, reconnectPeriod: 0 });
      await listener.subscribeAsync(topic);
      const heard = new Promise((resolve) => listener.once("message", resolve));
      await client.publishAsync(topic, payload, { qos: 0 });
      await heard;
      await listener.endAsync();
    },
    publish: (topic: string, payload: Buffer) => client.publishAsync(topic, payload, { qos: 0 }),
    /** As it says of a downlink that has left. */
    async sent(command: Record<string, unknown>): Promise<void> {
      const topic = `application/${application}/device/${devEui}/event/txack`;
      const event = { deviceInfo: { devEui }, queueItemId: command.id, fCntDown: 1 };
      await client.publishAsync(topic, JSON.stringify(event), { qos: 0 });
    },
  };
}

function startService(node: NodeFixture, parts: Pick<LorawanServiceParts, "broker"> & Partial<LorawanServiceParts>) {
  const states: LorawanState[] = [];
  const waiting: { state: LorawanState; resolve: () => void }[] = [];
  const { store, keys, path } = node;
  const service = new LorawanService({
    ...{ store, keys, path, clock: systemClock, receipts: "each", lease: "lorawan/test", renewMs: 100, ttlMs: 2_000 },
    server: chirpStack(application),
    registry: new Registry(store),
    log: createLog("test", (line) => node.logLines.push(line)),
    onState: (state) => {
      states.push(state);
      for (const one of waiting.filter((each) => each.state === state)) one.resolve();
    },
    ...parts,
  });
  return {
    service,
    states,
    reached: (state: LorawanState) =>
      states.at(-1) === state ? Promise.resolve() : new Promise<void>((resolve) => waiting.push({ state, resolve })),
  };
}

function sequenceIn(command: Record<string, unknown>): number {
  assert.deepEqual([command.devEui, command.fPort], [devEui, receiptPort]);
  return decodeLoraReceipt(new Uint8Array(Buffer.from(command.data as string, "base64"))).sequence;
}

test("two nodes on one store: one takes the frames, the other takes over when it is gone or cut off", {
  skip: missing,
}, async (t) => {
  const postgres = await PostgresServer.start();
  t.after(() => postgres.stop());
  usePostgres(postgres);
  t.after(() => usePostgres(undefined));
  const network = await startServer(t);
  const first = new NodeFixture(t);
  const device = await first.enrolled();
  await first.store.lorawan.bind(devEui, device.name, 1);
  const second = first.another(t); // it opens its store at once: by now there is one
  const broker = network.address;
  // The first one's way to its store is cut later on.
  let isCut = false;
  const lorawan = new Proxy(first.store.lorawan, {
    get: (target, name) =>
      name === "takeLease" && isCut
        ? () => Promise.reject(new Error("no connection to the store"))
        : Reflect.get(target, name),
  });
  const store = new Proxy(first.store, {
    get: (target, name) => (name === "lorawan" ? lorawan : Reflect.get(target, name)),
  });
  const one = startService(first, { broker, store });
  await one.reached("connected");
  const two = startService(second, { broker });
  t.after(() => two.service.stop());
  assert.equal(sequenceIn(await network.up(0, device.reading())), 1);
  assert.deepEqual(two.states, ["standby"]);
  assert.equal(two.service.status.counts, undefined);

  isCut = true;
  await one.reached("standby");
  await two.reached("connected");
  assert.equal(one.service.status.state, "standby", "it has let go before the other one began");
  assert.equal(sequenceIn(await network.up(1, device.reading())), 2);
  assert.equal(network.commands.length, 2, "each frame was answered once");

  // In order: given back, not run out.
  isCut = false;
  await two.service.stop();
  await one.reached("connected");
  assert.equal(sequenceIn(await network.up(2, device.reading())), 3);
  await one.service.stop();

  // Control: with leases of their own both take every frame.
  const alone = [startService(first, { broker, lease: "a" }), startService(second, { broker, lease: "b" })];
  await Promise.all(alone.map(({ reached }) => reached("connected")));
  await network.up(3, device.reading());
  while (network.commands.length < 5) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(network.commands.length, 5);
  for (const { service } of alone) await service.stop();
  for (const node of [first, second]) await node.path.stop();
});

test("a node whose store gives no answer takes no frames once its lease has run out", {
  skip: mosquittoMissing,
}, async (t) => {
  const network = await startServer(t);
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.store.lorawan.bind(devEui, device.name, 1);
  let aheadMs = 0;
  const clock = { wallMs: systemClock.wallMs, monotonicMs: () => systemClock.monotonicMs() + aheadMs };
  let hang: (() => void) | undefined;
  const answer = Promise.withResolvers<void>();
  const lorawan = new Proxy(node.store.lorawan, {
    get: (target, name) => {
      if (name === "takeLease" && hang)
        return () => {
          hang?.();
          return answer.promise.then(() => true);
        };
      const value = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const store = new Proxy(node.store, {
    get: (target, name) => {
      if (name === "lorawan") return lorawan;
      const value = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const { service, reached, states } = startService(node, { broker: network.address, store, clock, ttlMs: 15_000 });
  t.after(() => service.stop());
  await reached("connected");
  await network.up(0, device.reading());
  await new Promise<void>((resolve) => {
    hang = resolve;
  });
  const up = (fCnt: number) =>
    chirpStackUp(devEui, { fCnt, fPort: recordPort, bytes: packetOfRecord(device.reading()) });
  const control = up(1);
  await network.deliver(control.topic, control.payload);
  while (node.count("records") < 2) await new Promise((resolve) => setImmediate(resolve));
  aheadMs = 20_000;
  assert.equal(states.at(-1), "connected", "it does not know yet");
  const late = up(2);
  await network.deliver(late.topic, late.payload);
  hang = undefined;
  answer.resolve();
  await reached("standby");
  await reached("connected");
  await network.up(3, device.reading());
  assert.equal(node.count("records"), 3, "all but the one that came after the lease");
  await service.stop();
  await node.path.stop();
});

test("a broker that goes and comes again, floods of junk, and events over the limit end nothing", {
  skip: mosquittoMissing,
}, async (t) => {
  const network = await startServer(t);
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.store.lorawan.bind(devEui, device.name, 1);
  // Over MQTT 5 a broker leaves out what is over the limit that it was told; over 3.1.1 it cannot know.
  const { service, reached } = startService(node, { broker: { ...network.address, protocolVersion: 4 } });
  await reached("connected");
  const topic = `application/${application}/device/${devEui}/event/up`;
  for (let i = 0; i < 300; i++) {
    const { payload } = chirpStackUp(devEui, { fCnt: i, fPort: 20, bytes: Buffer.alloc(1 + (i % 51), i) });
    await network.publish(topic, i % 3 === 0 ? payload.subarray(0, i) : payload);
  }
  await network.publish(topic, Buffer.alloc(100_000, "x"));
  const command = await network.up(1_000, device.reading());
  assert.ok(command.fPort === receiptPort || command.fPort === 20);
  const { counts } = service.status;
  assert.ok((counts?.refused["not-json"] ?? 0) >= 99);
  assert.equal(counts?.refused["too-large"], 1);
  assert.ok((counts?.sessions ?? 9) <= 1);
  // One far over it is hung up on before it is gathered; the connection is made again.
  await network.publish(topic, Buffer.alloc(1_000_000, "x"));
  await reached("connecting");
  await reached("connected");
  assert.match(node.logLines.join("\n"), /the broker sent a packet of \d+ bytes or more/);
  await service.stop();
  await node.path.stop();
  assert.equal(node.count("leases"), 0);
});
