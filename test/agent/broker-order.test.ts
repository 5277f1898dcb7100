import assert from "node:assert/strict";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import type { MqttConfiguration } from "../../agent/configuration.ts";
import { MqttUplink, reconnectBackOff } from "../../agent/mqtt-uplink.ts";
import { uplinkFor } from "../../agent/uplink.ts";
import { BackOff } from "../../platform/back-off.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";
import { BrokerFixture } from "./broker-fixture.ts";

const device = "z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";

class OrderFixture {
  readonly states: string[] = [];
  readonly uplink: MqttUplink;
  #news: () => void = () => undefined;

  constructor(t: TestContext, brokers: readonly MqttConfiguration[], returnAfterMs = 60_000) {
    this.uplink = new MqttUplink({
      ...{ brokers, device, returnAfterMs, onReceipt: () => undefined },
      backOff: new BackOff({ firstMs: 10, longestMs: 20 }),
      onState: (connected) => {
        this.states.push(`${connected ? "on" : "off"} ${this.uplink.address.split(":").at(-1)}`);
        this.#news();
      },
    });
    t.after(() => this.uplink.stop());
    this.uplink.start();
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition())
      await new Promise<void>((resolve) => {
        this.#news = resolve;
      });
  }
}

const at = ({ port }: BrokerFixture, more: Partial<MqttConfiguration> = {}): MqttConfiguration => ({
  ...{ protocol: "mqtt", host: "127.0.0.1", port },
  ...more,
});

async function twoBrokers(t: TestContext): Promise<[BrokerFixture, BrokerFixture]> {
  return [await BrokerFixture.start(t), await BrokerFixture.start(t)];
}

test("the first broker that works is used; where it is lost, the next one", async (t) => {
  const [first, second] = await twoBrokers(t);
  const fixture = new OrderFixture(t, [at(first), at(second)]);
  await fixture.until(() => fixture.states.includes(`on ${first.port}`));
  await first.kill();
  await fixture.until(() => fixture.states.includes(`on ${second.port}`));
  assert.equal(fixture.uplink.isConnected, true);
  assert.equal(fixture.uplink.address, `mqtt://127.0.0.1:${second.port}`);
});

test("back to the better one after a while, without a gap, and with a goodbye to the other", async (t) => {
  const [first, second] = await twoBrokers(t);
  await first.kill();
  const fixture = new OrderFixture(t, [at(first), at(second)], 100);
  await fixture.until(() => fixture.states.includes(`on ${second.port}`));
  await first.start();
  const before = fixture.states.length;
  await fixture.until(() => fixture.states.includes(`on ${first.port}`));
  assert.deepEqual(fixture.states.slice(before), [`on ${first.port}`], "no moment without a connection");
  await second.until(() => second.published.some(({ text }) => text === '{"state":"offline"}'));
  assert.equal(
    fixture.uplink.publish(Uint8Array.of(1), "live", () => undefined),
    true,
  );
  await first.until(() => first.published.some(({ topic }) => topic === topicOf(device, "record")));
});

test("a better one that still does not work is tried again and again, and costs the working one nothing", async (t) => {
  const [first, second] = await twoBrokers(t);
  let refused = 0;
  await first.kill();
  await first.start((aedes) => {
    aedes.authorizeSubscribe = (_client, _subscription, done) => {
      refused++;
      done(null, null);
    };
  });
  const fixture = new OrderFixture(t, [at(first), at(second)], 20);
  await fixture.until(() => fixture.states.includes(`on ${second.port}`));
  const before = fixture.states.length;
  while (refused < 5) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(fixture.states.length, before);
  assert.equal(fixture.uplink.isConnected, true);
});

/** A broker that answers in MQTT 3.1.1 with nothing but these: CONNACK always, SUBACK where asked for. */
async function silentBroker(t: TestContext, suback: boolean): Promise<{ port: number; connections: number }> {
  const broker = { port: 0, connections: 0 };
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("data", (connect) => {
      if (connect[connect.indexOf("MQTT") + 4] === 5) {
        socket.end();
        return;
      }
      broker.connections++;
      socket.write(Buffer.from([0x20, 2, 0, 0]));
      socket.on("data", (bytes) => {
        if (bytes[0] === 0x82 && suback)
          socket.write(Buffer.from([0x90, 3, bytes[2] as number, bytes[3] as number, 1]));
        if (bytes[0] === 0xc0) socket.write(Buffer.from([0xd0, 0]));
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  broker.port = (server.address() as AddressInfo).port;
  return broker;
}

test("a broker that takes records and acknowledges none is left for the next one", async (t) => {
  const silent = await silentBroker(t, true);
  const second = await BrokerFixture.start(t);
  const first: MqttConfiguration = { protocol: "mqtt", host: "127.0.0.1", port: silent.port };
  const fixture = new OrderFixture(t, [first, at(second)]);
  await fixture.until(() => fixture.states.includes(`on ${silent.port}`));
  fixture.uplink.publish(Uint8Array.of(1), "live", () => undefined);
  await fixture.until(() => fixture.states.filter((state) => state.startsWith("on ")).length > 1);
  assert.equal(fixture.uplink.address, `mqtt://127.0.0.1:${second.port}`);
});

test("a broker that never answers the subscription is left for the next one", async (t) => {
  const silent = await silentBroker(t, false);
  const second = await BrokerFixture.start(t);
  const first: MqttConfiguration = { protocol: "mqtt", host: "127.0.0.1", port: silent.port };
  const fixture = new OrderFixture(t, [first, at(second)]);
  await fixture.until(() => fixture.states.includes(`on ${second.port}`));
  assert.equal(silent.connections, 1);
});

test("a broker that carries only the newest takes no backlog", async (t) => {
  const [first, second] = await twoBrokers(t);
  const fixture = new OrderFixture(t, [at(first), at(second, { carries: "newest" })]);
  await fixture.until(() => fixture.uplink.isConnected);
  const takes = (): boolean[] =>
    (["live", "backlog"] as const).map((lane) => uplinkFor([fixture.uplink], lane) !== undefined);
  assert.deepEqual(takes(), [true, true]);
  await first.kill();
  await fixture.until(() => fixture.states.includes(`on ${second.port}`));
  assert.deepEqual(takes(), [true, false]);
});

/** Of so many hubs that a broker lost at once, how many are back in the fullest second after it has returned. */
function fullestSecond(hubs: number, awayMs: number, backOffOf: () => BackOff): number {
  const seconds = new Map<number, number>();
  for (let hub = 0; hub < hubs; hub++) {
    const backOff = backOffOf();
    let atMs = backOff.next();
    while (atMs < awayMs) atMs += backOff.next();
    const second = Math.floor((atMs - awayMs) / 1_000);
    seconds.set(second, (seconds.get(second) ?? 0) + 1);
  }
  return Math.max(...seconds.values());
}

test("10,000 hubs whose broker was away do not return in the same second", () => {
  const random = randomOfRun();
  const chance = (): number => random.integer(0, 999_999) / 1_000_000;
  const configuration: MqttConfiguration = { protocol: "mqtts", host: "broker.example", port: 8_883 };
  for (const [awayMs, most] of [
    [0, 1_150],
    [5_000, 1_450],
    [30_000, 1_000],
    [600_000, 250],
  ] as const) {
    const fullest = fullestSecond(10_000, awayMs, () => reconnectBackOff(configuration, chance));
    assert.ok(fullest <= most, `seed ${random.seed}: ${fullest} in one second after ${awayMs} ms`);
  }
  // Control: half a second's delay, half of it left to chance.
  const narrow = fullestSecond(10_000, 0, () => new BackOff({ firstMs: 500, longestMs: 60_000, random: chance }));
  assert.equal(narrow, 10_000);
});
