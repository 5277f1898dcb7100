/**
 * Readings over LoRaWAN: a real wallet's process, the agent with its modem driver on a pty, the simulated modem, radio and network server, and
 * the full node's intake, path and store. The same story for each family of modems; radio and modem run faster than real time.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { Agent } from "../../agent/agent.ts";
import { type HubConfiguration, loraPlan } from "../../agent/configuration.ts";
import type { AgentEvent } from "../../agent/event.ts";
import { LoraCarrier } from "../../agent/lora-carrier.ts";
import { createFileStateStore } from "../../agent/lora-state-store.ts";
import type { LoraEvent } from "../../agent/lora-status.ts";
import { pause } from "../../agent/pause.ts";
import { createLoraModem, type LoraTiming, type ModemFamily, modemFamilies } from "../../drivers/lora/modem.ts";
import { serialPortOpener } from "../../drivers/serial/port-identity.ts";
import { chirpStack } from "../../fullnode/chirpstack.ts";
import { LorawanIntake } from "../../fullnode/lorawan-intake.ts";
import { enrolDevice, Registry } from "../../fullnode/registry.ts";
import { systemClock } from "../../platform/clock.ts";
import { createLog } from "../../platform/log.ts";
import { recordPort } from "../../protocol/lorawan.ts";
import { multibaseOf } from "../../protocol/public-key.ts";
import { openPty } from "../../simulator/pty.ts";
import { createRadioWorld, type RadioWorld } from "../../simulator/radio-world.ts";
import { runSimulatedMeter } from "../../simulator/simulated-meter.ts";
import { WalletFolder } from "../cli/wallet-process.ts";
import { eastronSdm630 } from "../drivers/sdm630-line.ts";
import { NodeFixture } from "../fullnode/node-fixture.ts";

/** Seconds of modem and radio that pass in one. */
const speed = 4;
const never = new AbortController().signal;
const timing: LoraTiming = {
  clock: { wallMs: systemClock.wallMs, monotonicMs: () => performance.now() * speed },
  pause: (ms, signal = never) => pause(ms / speed, signal),
};
const slotS = 1;
const batchS = 6;
/** All that the meter is read for: a batch of it does not fit a frame. */
const codes = eastronSdm630.defaultCodes;

class Hub {
  readonly family: ModemFamily;
  readonly wallet: WalletFolder;
  readonly world: RadioWorld;
  readonly node: NodeFixture;
  readonly events: AgentEvent[] = [];
  readonly configuration: HubConfiguration;
  #news: () => void = () => undefined;
  readonly #stateFolder = mkdtempSync(path.join(tmpdir(), "ecp-lora-"));

  private constructor(family: ModemFamily, meterPort: number, modemPath: string, world: RadioWorld, node: NodeFixture) {
    this.family = family;
    this.world = world;
    this.node = node;
    this.wallet = new WalletFolder();
    const { publicKey, share } = node.keys;
    this.wallet.make({
      meters: [
        {
          ...{ index: 0, name: "house", profile: eastronSdm630.id, slotS, powerMaxW: 0, rowsPerMinute: 600 },
          ...{ resolutionWh: 1, installation: 0, installationReason: "" },
        },
      ],
      nodes: [{ name: "node", publicKey, share }],
      plans: [{ plan: loraPlan, slotS, sealEveryS: 86_400 }],
    });
    this.configuration = {
      walletSocket: this.wallet.socket,
      walletFolder: "",
      agentSocket: "",
      lines: [{ name: "main", tcp: { host: "127.0.0.1", port: meterPort } }],
      meters: [
        { index: 0, name: "house", line: "main", unit: 1, profile: eastronSdm630.id, intervalS: slotS, powerMaxW: 0 },
      ],
      sealEveryS: 60,
      lora: {
        modem: { path: modemPath, family, baud: 115_200 },
        ...{ region: "EU868", slotS, codes, batchS, rx1DelayS: 1, when: "always", stateFolder: this.#stateFolder },
      },
    };
  }

  static async start(t: TestContext, family: ModemFamily): Promise<Hub> {
    const meter = await runSimulatedMeter({ tcp: { host: "127.0.0.1", port: 0 }, baud: 115_200 });
    t.after(() => meter.close());
    const pty = openPty();
    t.after(() => pty.close());
    const node = new NodeFixture(t);
    const world = createRadioWorld({
      timing: {
        nowMs: timing.clock.monotonicMs,
        after: (ms, work) => {
          const timer = setTimeout(work, ms / speed);
          return () => clearTimeout(timer);
        },
      },
      random: Math.random,
    });
    t.after(() => world.close());
    const modem = world.modem(family, { dutyCycle: "off", baud: 0 });
    modem.onOutput((bytes) => pty.write(bytes));
    pty.onData((bytes) => modem.receive(bytes));
    const hub = new Hub(family, Number(meter.address?.split(":")[1]), pty.path, world, node);
    t.after(() => {
      hub.wallet.remove();
      rmSync(hub.#stateFolder, { recursive: true, force: true });
    });
    await hub.#enrol(t);
    return hub;
  }

  async #enrol(t: TestContext): Promise<void> {
    const { node, world, wallet } = this;
    const client = await wallet.client(wallet.run());
    const request = await client.enrol();
    client.close();
    await enrolDevice(node.store, node.keys, request, 1);
    const device = multibaseOf(wallet.key.publicKey);
    for (const { devEui } of world.devices) assert.equal(await node.store.lorawan.bind(devEui, device, 1), undefined);
    const intake = await LorawanIntake.open({
      ...{ store: node.store, keys: node.keys, path: node.path, receipts: "each", clock: systemClock },
      server: chirpStack(world.applicationId),
      registry: new Registry(node.store),
      publishCommand: (topic, json) => world.command(topic, json),
      log: createLog("test", (line) => node.logLines.push(line)),
    });
    world.onUplinkJson((topic, json) => intake.receive(topic, Buffer.from(json)));
    t.after(() => intake.stop());
  }

  agent(t: TestContext, polling = true): Agent {
    const { configuration, family } = this;
    const { lora, meters } = configuration;
    assert.ok(lora);
    const profileOf = () => eastronSdm630;
    const modem = createLoraModem({
      ...{ family, region: lora.region, timing, rx1DelayS: lora.rx1DelayS },
      openTransport: serialPortOpener({ ...lora.modem, dataBits: 8, parity: "none", stopBits: 1 }),
    });
    const carrier = new LoraCarrier({
      ...{ configuration: lora, meters, profileOf, modem, timing, bootId: "this", random: Math.random },
      store: createFileStateStore(lora.stateFolder),
    });
    const emit = (event: AgentEvent): void => {
      this.events.push(event);
      this.#news();
    };
    const agent = new Agent({ configuration, profileOf, clock: systemClock, emit, polling, lora: carrier });
    t.after(() => agent.stop());
    return agent;
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition())
      await new Promise<void>((resolve) => {
        this.#news = resolve;
      });
  }

  lora(name: LoraEvent["event"]): LoraEvent[] {
    return this.events.flatMap((event) => (event.event === "lora" && event.lora.event === name ? [event.lora] : []));
  }

  get refusals(): string[] {
    return this.events.flatMap((event) => (event.event === "refused" ? [event.reason] : []));
  }

  count(name: AgentEvent["event"]): number {
    return this.events.filter(({ event }) => event === name).length;
  }
}

async function story(t: TestContext, family: ModemFamily): Promise<void> {
  const hub = await Hub.start(t, family);
  const first = hub.agent(t);
  await first.start();
  // The wallet's own events fit a frame, a batch does not: the agent ends while one is under way.
  const fragments = () => hub.lora("frame").filter((event) => event.event === "frame" && event.port !== recordPort);
  await hub.until(() => fragments().length > 0);
  assert.equal(first.status().lora?.isJoined, true);
  await first.stopPolling();
  await first.stop();
  const [before] = first.status().lora?.sessions ?? [];
  const again = hub.agent(t, false);
  await again.start();
  await hub.until(() => hub.count("acknowledged") > 0 && again.status().waiting === 0 && again.status().sealed > 2);
  // A receipt ends the sessions of what it names.
  await hub.until(() => again.status().lora?.sessions.length === 0);
  const { sealed: last, acknowledged } = again.status();
  assert.equal(acknowledged, last);
  assert.equal(hub.count("lost"), 0);
  assert.deepEqual(hub.refusals, []);
  const tries = hub
    .lora("record")
    .flatMap((event) => (event.event === "record" && event.sequence === before?.sequence ? [event.tries] : []));
  assert.deepEqual(tries, [1], "the packet that was under way went on where it was");
  assert.equal(hub.lora("joined").length, 1, "the modem stayed joined while the agent was away");
  const read = hub.events.flatMap((event) => (event.event === "reading" ? [event.timeS] : []));
  const stored = hub.node.query("SELECT time_s FROM rows WHERE booked = 1").map(({ time_s: timeS }) => timeS);
  assert.deepEqual(
    read.filter((timeS) => !stored.includes(timeS)),
    [],
    "each reading is at the full node, verified and booked",
  );
  assert.equal(new Set(stored).size, stored.length);
  await again.stop();
}

test("readings go over LoRaWAN, receipts release them, an agent that comes back goes on: the same for every family of modems", {
  concurrency: true,
}, async (t) => {
  await Promise.all(modemFamilies.map((family) => t.test(family, (own) => story(own, family))));
});
