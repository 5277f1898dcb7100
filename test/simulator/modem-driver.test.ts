/** The driver of drivers/lora on the simulated modems: two readings of the same dialects, written apart, on a virtual clock. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  createLoraModem,
  type LoraDownlink,
  type LoraModem,
  type ModemFamily,
  modemFamilies,
} from "../../drivers/lora/modem.ts";
import type { SimulatedModem } from "../../simulator/lora-modem.ts";
import {
  createRadioWorld,
  type ModemOptions,
  modemTransport,
  type RadioWorld,
  type RadioWorldOptions,
} from "../../simulator/radio-world.ts";
import { loraTimingOf, VirtualTiming } from "../../simulator/simulator-timing.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

const random = randomOfRun();
console.log(`seed ${random.seed} (ECP_TEST_SEED=${random.seed} repeats this run)`);

class Rig {
  readonly timing = new VirtualTiming();
  readonly world: RadioWorld;
  readonly modem: SimulatedModem;
  readonly driver: LoraModem;
  readonly downlinks: LoraDownlink[] = [];
  readonly lost: string[] = [];
  readonly ups: Record<string, unknown>[] = [];

  constructor(family: ModemFamily, options: Partial<RadioWorldOptions> = {}, modem: ModemOptions = {}) {
    const wallMs = (ms: number): number => Date.UTC(2026, 0, 5) + ms;
    this.world = createRadioWorld({ timing: this.timing, random: () => random.uint32() / 2 ** 32, wallMs, ...options });
    this.modem = this.world.modem(family, modem);
    this.driver = createLoraModem({
      openTransport: modemTransport(this.modem),
      family,
      region: options.region ?? "EU868",
      timing: loraTimingOf(this.timing, wallMs),
      rx1DelayS: options.server === "tts" ? 5 : 1,
    });
    this.driver.onDownlink((downlink) => this.downlinks.push(downlink));
    this.driver.onLost((reason) => this.lost.push(reason));
    this.world.onUplinkJson((topic, json) => {
      if (!topic.endsWith("/up")) return;
      this.ups.push(JSON.parse(json));
      this.answer();
    });
  }

  answer = (): void => {};

  get devEui(): string {
    return this.world.devices[0]!.devEui;
  }

  /** Lets time pass until `promise` is settled. */
  async wait<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const settled = promise.finally(() => {
      isSettled = true;
    });
    settled.catch(() => {});
    for (let i = 0; i < 10_000 && !isSettled; i++) await this.timing.advance(100);
    assert.ok(isSettled, "still not settled after 1,000 s");
    return settled;
  }

  async joined(): Promise<void> {
    await this.wait(this.driver.begin());
    assert.deepEqual(await this.wait(this.driver.join()), { kind: "joined" });
  }

  send(port: number, bytes: Uint8Array) {
    return this.wait(this.driver.send(port, bytes));
  }
}

for (const family of modemFamilies) {
  test(`${family}: provisioned, begun, joined; frames of every length go through, downlinks come before their frame is done`, async () => {
    const rig = new Rig(family, {}, { hasKeys: false, dutyCycle: "off" });
    const { joinEui, appKey } = rig.world.devices[0]!;
    const { devEui } = await rig.wait(rig.driver.provision({ joinEui, devEui: rig.devEui, appKey }, "EU868"));
    assert.equal(devEui, rig.devEui);
    await rig.joined();
    const topic = `application/${rig.world.applicationId}/device/${devEui}/command/down`;
    rig.answer = () => {
      rig.world.command(topic, JSON.stringify({ devEui, fPort: 110, data: Buffer.alloc(41, 7).toString("base64") }));
    };
    const sent: string[] = [];
    for (const length of [1, 11, 51, 140, 222]) {
      const bytes = random.bytes(length);
      sent.push(Buffer.from(bytes).toString("base64"));
      assert.deepEqual(await rig.send(100, bytes), { kind: "sent" });
      assert.equal(rig.downlinks.length, sent.length, "the downlink was reported before the frame was done");
    }
    assert.deepEqual(
      rig.ups.map(({ data }) => data),
      sent,
    );
    for (const { port, bytes } of rig.downlinks) assert.deepEqual([port, bytes], [110, new Uint8Array(41).fill(7)]);
    const state = await rig.wait(rig.driver.state());
    assert.deepEqual([state.joined, state.dataRate], [true, 5]);
    if (family === "lora-e5") assert.equal(state.bytesMax, 242);
    assert.deepEqual(rig.lost, []);
    await rig.driver.close();
  });

  test(`${family}: a wrong AppKey is no answer, refusals are what they are, a reset is told and mended by a join`, async () => {
    const wrong = new Rig(family, {}, { appKey: "ff".repeat(16) });
    await wrong.wait(wrong.driver.begin());
    assert.equal((await wrong.wait(wrong.driver.join())).kind, "no-answer");

    const rig = new Rig(family, { dataRate: 0 }, { dutyCycle: "band" });
    await rig.wait(rig.driver.begin());
    assert.equal((await rig.send(100, random.bytes(5))).kind, "not-joined");
    await rig.timing.advance(200_000);
    assert.equal((await rig.wait(rig.driver.join())).kind, "joined");
    await rig.timing.advance(200_000);
    const outcomes = new Set<string>();
    for (let i = 0; i < 4; i++) outcomes.add((await rig.send(100, random.bytes(51))).kind);
    assert.deepEqual([...outcomes], ["sent", "duty-cycle"]);
    await rig.timing.advance(1_000_000);

    // The server's ADR makes it slower than the driver knows: an oversized frame, and what comes of it.
    const faster = new Rig(family, {}, { dutyCycle: "off" });
    await faster.joined();
    await faster.send(100, random.bytes(5));
    faster.world.server.setDataRate(faster.devEui, 0);
    await faster.send(100, random.bytes(5));
    const tooLong = await faster.send(100, random.bytes(200));
    assert.equal(tooLong.kind, "too-long");
    assert.equal((await faster.wait(faster.driver.state())).dataRate, 0);
    assert.equal((await faster.send(100, random.bytes(45))).kind, "sent");

    rig.modem.inject({ kind: "reset", command: /SEND|MSGHEX|mac tx/ });
    const cut = await rig.send(100, random.bytes(5));
    assert.ok(["fault", "not-joined"].includes(cut.kind), JSON.stringify(cut));
    await rig.timing.advance(10_000);
    await rig.wait(rig.driver.begin());
    await rig.timing.advance(200_000);
    assert.equal((await rig.wait(rig.driver.join())).kind, "joined");
    await rig.timing.advance(200_000);
    assert.deepEqual(await rig.send(100, random.bytes(5)), { kind: "sent" });
  });

  test(`${family}: a spoilt byte, silence and an event between are got over; The Things Stack's window of 5 s is waited for`, async () => {
    const rig = new Rig(family, { server: "tts" }, { dutyCycle: "off" });
    await rig.joined();
    const topic = `v3/${rig.world.applicationId}/devices/eui-${rig.devEui}/down/replace`;
    rig.answer = () => {
      rig.world.command(topic, JSON.stringify({ downlinks: [{ f_port: 20, frm_payload: "IA==" }] }));
    };
    const faults = [
      { kind: "garbage-first-byte" },
      { kind: "silence", command: /./ },
      { kind: "interjection", command: /SEND|MSGHEX|mac tx/, lines: ["+EVT:TIMEREQ_OK"] },
    ] as const;
    for (const fault of faults) {
      const before = rig.ups.length;
      if (family === "rn2483" && fault.kind === "interjection") continue; // it never says what it was not asked
      rig.modem.inject(fault);
      for (let tries = 0; tries < 5 && rig.ups.length === before; tries++) await rig.send(100, random.bytes(20));
      assert.equal(rig.ups.length, before + 1, fault.kind);
      assert.equal(rig.downlinks.length, rig.ups.length, fault.kind);
    }
  });
}

test("how often a frame was on the air is seen by the time that it took, where the server asks for more than once", async () => {
  for (const family of modemFamilies)
    for (const dataRate of [5, 2, 0]) {
      const rig = new Rig(family, {}, { dutyCycle: "off" });
      await rig.joined();
      assert.deepEqual(await rig.send(100, random.bytes(11)), { kind: "sent" });
      rig.world.server.setDataRate(rig.devEui, dataRate, 3);
      assert.equal((await rig.send(100, random.bytes(11))).kind, "sent");
      await rig.wait(rig.driver.state());
      await rig.wait(rig.timing.advance(30_000));
      const before = rig.world.airtimeOf(rig.devEui).frames;
      const outcome = await rig.send(100, random.bytes(40));
      await rig.wait(rig.timing.advance(30_000));
      assert.equal(rig.world.airtimeOf(rig.devEui).frames - before, 3);
      const transmissions = outcome.kind === "sent" ? outcome.transmissions : undefined;
      // An AT_Slave says nothing when it is through: docs/lorawan.md says so.
      if (family === "at-slave") assert.equal(transmissions, undefined);
      else assert.ok(transmissions === 3 || transmissions === 4, `${family}, DR${dataRate}: ${transmissions}`);
      await rig.driver.close();
    }
});
