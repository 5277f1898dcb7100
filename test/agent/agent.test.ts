import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Agent } from "../../agent/agent.ts";
import type { HubConfiguration } from "../../agent/configuration.ts";
import type { AgentEvent } from "../../agent/event.ts";
import { PolicyMismatch } from "../../agent/policy-check.ts";
import { systemClock } from "../../platform/clock.ts";
import { digestBytes, kidBytes } from "../../protocol/cose-sign1.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { multibaseOf } from "../../protocol/public-key.ts";
import { decodeReceipt, signReceipt } from "../../protocol/receipt.ts";
import { helloFields } from "../../protocol/wallet-hello.ts";
import {
  readFields,
  releaseFields,
  sealFields,
  WalletRefusal,
  type WalletRequest,
} from "../../protocol/wallet-message.ts";
import { runSimulatedMeter, type SimulatedMeter } from "../../simulator/simulated-meter.ts";
import { eastronSdm630 } from "../drivers/sdm630-line.ts";
import { BrokerFixture } from "./broker-fixture.ts";
import { type Reply, ScriptedWallet, sampleHello } from "./scripted-wallet.ts";
import { socketPath } from "./socket-folder.ts";

const device = multibaseOf(sampleHello.publicKey);

/** A wallet in memory behind a real socket: seals, reads back, releases what a receipt says (whoever signed it). */
class MemoryWallet extends ScriptedWallet {
  readonly rows = new Map<number, number>();
  sequence = 1; // the event of its start
  through = 0;
  epoch = sampleHello.epoch;
  slotS = 1;
  /** Its answers to seal requests have no records, as those of a wallet that does not know of that. */
  givesRecords = true;

  constructor(path: string) {
    super(path);
    this.script((request) => this.answer(request));
  }

  answer(request: WalletRequest): Reply {
    switch (request.type) {
      case "hello":
        return helloFields({
          ...sampleHello,
          epoch: this.epoch,
          nextSequence: this.sequence + 1,
          through: this.through,
          meters: [{ index: 0, slotS: this.slotS, lastTimeS: Math.max(0, ...this.rows.keys()) }],
        });
      case "seal": {
        const before = this.sequence;
        const sequences = request.rows.map(({ timeS }) => {
          const known = this.rows.get(timeS) ?? ++this.sequence;
          this.rows.set(timeS, known);
          return known;
        });
        return sealFields({
          sequences,
          ...(this.givesRecords && { records: this.#records(before + 1, this.sequence) }),
        });
      }
      case "read": {
        return readFields({ records: this.#records(request.from, Math.min(request.to, this.sequence)) });
      }
      case "release":
        this.through = Math.max(this.through, decodeReceipt(request.receipt).content.through);
        return releaseFields({ epoch: this.epoch, through: this.through });
      default:
        return new WalletRefusal("unknown-request");
    }
  }

  #records(from: number, to: number): [number, Uint8Array][] {
    const sequences = Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => from + i);
    return sequences.map((sequence) => [sequence, Buffer.from(`record ${sequence}`)]);
  }
}

interface World {
  readonly wallet: MemoryWallet;
  readonly broker: BrokerFixture;
  readonly meter: SimulatedMeter;
  readonly events: AgentEvent[];
  readonly configuration: HubConfiguration;
  /** Sequences that the node got, in the order of their arrival. */
  readonly arrived: number[];
  agent(polling?: boolean): Agent;
  until(condition: () => boolean): Promise<void>;
  /** False: the node stores, and says nothing. */
  receipts: boolean;
}

async function world(t: TestContext): Promise<World> {
  const meter = await runSimulatedMeter({ tcp: { host: "127.0.0.1", port: 0 }, baud: 115_200 });
  t.after(() => meter.close());
  const wallet = new MemoryWallet(socketPath(t));
  t.after(() => wallet.stop());
  await wallet.start();
  const broker = await BrokerFixture.start(t);
  let news: () => void = () => undefined;
  const events: AgentEvent[] = [];
  const arrived: number[] = [];
  const configuration: HubConfiguration = {
    walletSocket: wallet.path,
    walletFolder: "",
    agentSocket: "",
    lines: [{ name: "main", tcp: { host: "127.0.0.1", port: Number(meter.address?.split(":")[1]) } }],
    meters: [{ index: 0, name: "house", line: "main", unit: 1, profile: eastronSdm630.id, intervalS: 1, powerMaxW: 0 }],
    sealEveryS: 0,
    mqtt: { protocol: "mqtt", host: "127.0.0.1", port: broker.port },
  };
  const it: World = {
    ...{ wallet, broker, meter, events, configuration, arrived, receipts: true },
    agent: (polling = true) => {
      const profileOf = () => eastronSdm630;
      const emit = (event: AgentEvent): void => {
        events.push(event);
        news();
      };
      const agent = new Agent({ configuration, profileOf, clock: systemClock, emit, polling });
      t.after(() => agent.stop());
      return agent;
    },
    until: async (condition) => {
      while (!condition())
        await new Promise<void>((resolve) => {
          news = resolve;
        });
    },
  };
  const stored = new Set<number>();
  broker.onRecord((text) => {
    const sequence = Number(/^record (\d+)$/.exec(text)?.[1]);
    arrived.push(sequence);
    stored.add(sequence);
    news();
    if (!it.receipts) return;
    let through = wallet.through;
    while (stored.has(through + 1)) through++;
    if (through === 0) return;
    const receipt = { device: new Uint8Array(kidBytes), epoch: wallet.epoch, through, ranges: [], held: false };
    const rest = { digest: new Uint8Array(digestBytes), refused: [], timeS: 1 };
    broker.send(
      topicOf(device, "receipt"),
      Buffer.from(signReceipt({ ...receipt, ...rest }, () => new Uint8Array(64), new Uint8Array(kidBytes))),
    );
  });
  return it;
}

const count = (events: readonly AgentEvent[], name: AgentEvent["event"]): number =>
  events.filter(({ event }) => event === name).length;

test("a reading goes all the way: read, sealed, published, acknowledged", async (t) => {
  const { agent, events, wallet, until } = await world(t);
  const one = agent();
  await one.start();
  await until(() => wallet.through >= 3);
  await until(() => count(events, "acknowledged") >= 1);
  const reading = events.find((event) => event.event === "reading");
  assert.equal(reading?.status, "G");
  assert.ok((reading?.values["voltage-l1"] ?? 0) > 200_000);
  const status = one.status();
  assert.equal(status.device, device);
  assert.equal(status.wallet, "connected");
  assert.equal(status.uplink?.connected, true);
  assert.equal(status.meters[0]?.lastStatus, "G");
  await one.stop();
  const { sealed, acknowledged, waiting } = one.status();
  assert.equal(waiting, sealed - acknowledged);
  assert.equal(count(events, "lost"), 0);
});

for (const givesRecords of [true, false])
  test(`a reading sealed while connected is ${givesRecords ? "published as it came with the answer" : "read back where the answer has no record"}`, async (t) => {
    const { agent, wallet, arrived, until } = await world(t);
    wallet.givesRecords = givesRecords;
    const one = agent();
    await one.start();
    await until(() => one.status().uplink?.connected === true && wallet.through >= 2);
    const last = wallet.sequence;
    await until(() => arrived.includes(last + 2));
    const reads = wallet.requests.filter((request) => request.type === "read" && request.to > last);
    assert.equal(reads.length > 0, !givesRecords);
    assert.deepEqual(arrived.toSorted((a, b) => a - b).slice(0, 3), [1, 2, 3], "what nobody gave was read");
  });

test("what an agent before left is sent first; after --no-polling nothing is read", async (t) => {
  const { agent, events, wallet, until } = await world(t);
  wallet.sequence = 500;
  wallet.through = 100;
  const one = agent(false);
  await one.start();
  await until(() => one.status().acknowledged === 500);
  assert.equal(wallet.through, 500);
  assert.equal(count(events, "reading"), 0);
});

test("a receipt that never comes: all is sent again, and the first receipt ends it", async (t) => {
  const scene = await world(t);
  const { agent, wallet, arrived, until } = scene;
  wallet.sequence = 5;
  scene.receipts = false;
  const one = agent(false);
  await one.start();
  await until(() => arrived.length === 5);
  scene.receipts = true;
  await until(() => one.status().acknowledged === 5);
  assert.deepEqual(arrived.slice(0, 5), [1, 2, 3, 4, 5]);
  assert.equal(arrived[5], 1, "begun again behind what is released");
});

test("a wallet that is killed and comes back: polling goes on, and nothing is lost or doubled", async (t) => {
  const { agent, events, wallet, until } = await world(t);
  await agent().start();
  await until(() => count(events, "sealed") >= 1);
  await wallet.stop();
  await until(() => events.some((event) => event.event === "wallet" && event.state === "disconnected"));
  const readings = count(events, "reading");
  await until(() => count(events, "reading") >= readings + 2);
  wallet.sequence++; // the event of its start
  await wallet.start();
  await until(() => wallet.through === wallet.sequence && wallet.rows.size >= readings + 2);
  const times = [...wallet.rows.keys()].sort((a, b) => a - b);
  assert.deepEqual(
    times,
    times.map((_, i) => (times[0] ?? 0) + i),
  );
  assert.equal(count(events, "lost"), 0);
});

test("a wallet that comes back with a new epoch: sending begins at that epoch's sequences", async (t) => {
  const { agent, wallet, arrived, until } = await world(t);
  wallet.sequence = 50;
  const one = agent(false);
  await one.start();
  await until(() => one.status().acknowledged === 50);
  await wallet.stop();
  Object.assign(wallet, { epoch: 8, sequence: 2, through: 0 });
  arrived.length = 0;
  await wallet.start();
  await until(() => arrived.length >= 2);
  assert.deepEqual(arrived.slice(0, 2), [1, 2]);
});

test("a broker that is killed and comes back: what was sealed meanwhile arrives", async (t) => {
  const { agent, events, broker, wallet, until } = await world(t);
  await agent().start();
  await until(() => count(events, "acknowledged") >= 1);
  await broker.kill();
  const sealed = count(events, "sealed");
  await until(() => count(events, "sealed") >= sealed + 2);
  const { sequence } = wallet;
  await broker.start();
  await until(() => wallet.through >= sequence);
});

test("a policy that does not fit the configuration is refused at the start, with what differs", async (t) => {
  const { agent, wallet } = await world(t);
  wallet.slotS = 60;
  const one = agent();
  await assert.rejects(
    one.start(),
    (error) =>
      error instanceof PolicyMismatch && /60 s for meter 0 \(house\), the configuration 1 s/.test(error.message),
  );
  await one.stop();
  await agent(false).start(); // control: without polling nothing has to be sealed
});

test("stop() while the wallet was never there ends at once", async (t) => {
  const { agent, wallet } = await world(t);
  await wallet.stop();
  const one = agent();
  const started = assert.rejects(one.start(), { name: "AbortError" });
  await one.stop();
  await started;
});

test("stop() while the wallet is away ends, and says what it takes with it", async (t) => {
  const { agent, events, wallet, until } = await world(t);
  const one = agent();
  await one.start();
  await until(() => count(events, "sealed") >= 1);
  await wallet.stop();
  const readings = count(events, "reading");
  await until(() => count(events, "reading") >= readings + 1);
  await one.stop();
  const lost = events.filter((event) => event.event === "lost");
  assert.equal(lost.length, 1);
  assert.match(lost[0]?.detail ?? "", /away when the agent ended/);
});

test("stop() in the middle of a reading that gets no answer does not wait for it", async (t) => {
  const { agent, events, meter, wallet, until } = await world(t);
  const one = agent();
  await one.start();
  await until(() => count(events, "sealed") >= 1);
  meter.setFault({ kind: "silent" });
  const readings = count(events, "reading");
  await until(() => count(events, "reading") > readings);
  await one.stop();
  const letters = events.flatMap((event) => (event.event === "reading" ? [event.status] : []));
  assert.ok(letters.every((letter) => letter === "G" || letter === "T"));
  assert.equal(wallet.rows.size, count(events, "sealed"));
});

test("stopPolling(): what was read is sealed, forwarding goes on, twice is once", async (t) => {
  const { agent, events, wallet, until } = await world(t);
  const one = agent();
  await one.start();
  await until(() => count(events, "reading") >= 2);
  await Promise.all([one.stopPolling(), one.stopPolling()]);
  const readings = count(events, "reading");
  assert.equal(wallet.rows.size, readings);
  await until(() => one.status().waiting === 0);
  assert.equal(count(events, "reading"), readings);
});

test("stopPolling() before the start: nothing is ever read", async (t) => {
  const { agent, events, wallet } = await world(t);
  wallet.rows.set(1, 1);
  const one = agent();
  await one.stopPolling();
  await one.start();
  await one.stop();
  assert.equal(count(events, "reading"), 0);
  assert.deepEqual([...wallet.rows.keys()], [1]);
});

test("a receipt that the wallet refuses releases nothing, and is said", async (t) => {
  const { agent, events, wallet, until } = await world(t);
  wallet.script((request) =>
    request.type === "release" ? new WalletRefusal("receipt-not-pinned") : wallet.answer(request),
  );
  wallet.sequence = 2;
  const one = agent(false);
  await one.start();
  await until(() => count(events, "refused") >= 1);
  assert.equal(one.status().acknowledged, 0);
});
