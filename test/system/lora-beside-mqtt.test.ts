/**
 * LoRaWAN beside MQTT, with a real wallet's process: full rows and thin ones are in one chain, the broker gets all of it, and the radio costs no
 * airtime as long as receipts come over the broker. The modem is in memory, and its time passes 300 times as fast.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Agent } from "../../agent/agent.ts";
import { type HubConfiguration, type LoraConfiguration, loraPlan } from "../../agent/configuration.ts";
import type { AgentEvent } from "../../agent/event.ts";
import { LoraCarrier } from "../../agent/lora-carrier.ts";
import { pause } from "../../agent/pause.ts";
import type { LoraModem, LoraTiming } from "../../drivers/lora/modem.ts";
import { enrolDevice } from "../../fullnode/registry.ts";
import { systemClock } from "../../platform/clock.ts";
import { contentTypes, decodeCose } from "../../protocol/cose-sign1.ts";
import { recordOfPacket, recordPort } from "../../protocol/lorawan.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { multibaseOf } from "../../protocol/public-key.ts";
import { decodeRecordPayload, type RecordContent } from "../../protocol/record.ts";
import { runSimulatedMeter } from "../../simulator/simulated-meter.ts";
import { BrokerFixture } from "../agent/broker-fixture.ts";
import { WalletFolder } from "../cli/wallet-process.ts";
import { eastronSdm630 } from "../drivers/sdm630-line.ts";
import { NodeFixture } from "../fullnode/node-fixture.ts";

const speed = 300;
const never = new AbortController().signal;
const timing: LoraTiming = {
  clock: { wallMs: systemClock.wallMs, monotonicMs: () => performance.now() * speed },
  pause: (ms, signal = never) => pause(ms / speed, signal),
};
/** Of the modem's time: longer than a record waits for a receipt over the broker. */
const longMs = 15 * 60_000;

class Hub {
  readonly broker: BrokerFixture;
  readonly node: NodeFixture;
  readonly folder = new WalletFolder();
  readonly events: AgentEvent[] = [];
  /** What was sent over the radio. */
  readonly frames: RecordContent[] = [];
  readonly agent: Agent;
  #news: () => void = () => undefined;

  private constructor(t: TestContext, broker: BrokerFixture, meterPort: number, when: LoraConfiguration["when"]) {
    this.broker = broker;
    this.node = new NodeFixture(t);
    const { folder } = this;
    t.after(() => folder.remove());
    const { publicKey, share } = this.node.keys;
    const meter = { index: 0, name: "house", profile: eastronSdm630.id, powerMaxW: 0 };
    const limits = { slotS: 1, rowsPerMinute: 600, resolutionWh: 1, installation: 0, installationReason: "" };
    folder.make({
      meters: [{ ...meter, ...limits }],
      nodes: [{ name: "node", publicKey, share }],
      plans: [{ plan: loraPlan, slotS: 2, sealEveryS: 86_400 }],
      sealEveryS: 0,
    });
    const lora: LoraConfiguration = {
      modem: { path: "", family: "rui3", baud: 115_200 },
      ...{ region: "EU868", slotS: 2, codes: [], batchS: 4, rx1DelayS: 1, when, stateFolder: "" },
    };
    const configuration: HubConfiguration = {
      ...{ walletSocket: folder.socket, walletFolder: "", agentSocket: "", sealEveryS: 0, lora },
      lines: [{ name: "main", tcp: { host: "127.0.0.1", port: meterPort } }],
      meters: [{ ...meter, line: "main", unit: 1, intervalS: 1 }],
      mqtt: { protocol: "mqtt", host: "127.0.0.1", port: broker.port },
    };
    const profileOf = () => eastronSdm630;
    const carrier = new LoraCarrier({
      ...{ configuration: lora, meters: configuration.meters, profileOf, timing, bootId: "this", random: Math.random },
      store: { read: async () => undefined, write: async () => undefined },
      modem: this.#modem(),
    });
    const emit = (event: AgentEvent): void => {
      this.events.push(event);
      this.#news();
    };
    this.agent = new Agent({ configuration, profileOf, clock: systemClock, emit, polling: true, lora: carrier });
    t.after(() => this.agent.stop());
  }

  /** @param isAnswering the full node takes what comes over the broker, and its receipts go back */
  static async start(t: TestContext, when: LoraConfiguration["when"], isAnswering: boolean): Promise<Hub> {
    const meter = await runSimulatedMeter({ tcp: { host: "127.0.0.1", port: 0 }, baud: 115_200 });
    t.after(() => meter.close());
    const broker = await BrokerFixture.start(t);
    const hub = new Hub(t, broker, Number(meter.address?.split(":")[1]), when);
    const client = await hub.folder.client(hub.folder.run());
    await enrolDevice(hub.node.store, hub.node.keys, await client.enrol(), 1);
    client.close();
    if (isAnswering) hub.#answer();
    else await broker.kill();
    await hub.agent.start();
    return hub;
  }

  #answer(): void {
    const { node, broker, folder } = this;
    const device = multibaseOf(folder.key.publicKey);
    broker.onRecord((record) => {
      node.path.push(topicOf(device, "record"), Buffer.from(record, "latin1"));
      void node.path.idle().then(() => {
        for (const { bytes } of node.receipts.splice(0)) broker.send(topicOf(device, "receipt"), Buffer.from(bytes));
      });
    });
  }

  #modem(): LoraModem {
    return {
      family: "rui3",
      description: "in memory",
      firmware: "",
      begin: async () => ({ joined: true }),
      join: async () => ({ kind: "joined" }),
      state: async () => ({ joined: true, dataRate: 5, bytesMax: 242 }),
      send: async (port, bytes) => {
        await timing.pause(2_400);
        assert.equal(port, recordPort);
        const { payload } = decodeCose(recordOfPacket(bytes), contentTypes.record);
        this.frames.push(decodeRecordPayload(payload));
        this.#news();
        return { kind: "sent" };
      },
      onDownlink: () => undefined,
      onLost: () => undefined,
      provision: async () => ({ devEui: "" }),
      close: async () => undefined,
    };
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition())
      await new Promise<void>((resolve) => {
        this.#news = resolve;
      });
  }

  sealed(plan: number): number {
    return this.events.filter((event) => event.event === "sealed" && (event.plan ?? 0) === plan).length;
  }
}

async function silentRadio(t: TestContext): Promise<void> {
  const hub = await Hub.start(t, "fallback", true);
  await hub.until(() => hub.sealed(loraPlan) >= 2 && hub.agent.status().acknowledged >= 8);
  await timing.pause(longMs);
  await hub.agent.stopPolling();
  await hub.until(() => hub.agent.status().waiting === 0);
  assert.deepEqual(hub.frames, []);
  const { rows, booked } = hub.node.counted();
  assert.deepEqual([rows, booked], [hub.sealed(0), hub.sealed(0)], "thin rows are of times that the full ones have");
  await hub.agent.stop();
}

async function brokerAway(t: TestContext, when: LoraConfiguration["when"]): Promise<number> {
  const startMs = timing.clock.monotonicMs();
  const hub = await Hub.start(t, when, false);
  await hub.until(() => hub.frames.some(({ kind }) => kind === "reading"));
  const tookMs = timing.clock.monotonicMs() - startMs;
  await hub.until(() => hub.frames.some(({ kind }) => kind === "event"));
  assert.ok(hub.sealed(0) > 0);
  for (const frame of hub.frames) if (frame.kind === "reading") assert.equal(frame.plan, loraPlan);
  assert.equal(hub.agent.status().lora?.isFallback, when === "fallback");
  await hub.agent.stop();
  return tookMs;
}

test("LoRaWAN beside MQTT", { concurrency: true }, async (t) => {
  await Promise.all([
    t.test(
      "while receipts come over the broker the radio is silent, and the node counts each reading once",
      silentRadio,
    ),
    t.test(
      "a broker that is away: thin records and events go by radio after ten minutes, full ones never",
      async (own) => {
        const tookMs = await brokerAway(own, "fallback");
        assert.ok(tookMs >= 600_000, `${tookMs} ms`);
      },
    ),
    t.test("control: they go at once where hub.yaml says always", async (own) => {
      await brokerAway(own, "always");
    }),
  ]);
});
