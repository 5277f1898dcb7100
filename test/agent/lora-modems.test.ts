/** The uplink over each family's driver and a simulated modem of it: what goes wrong at the modem ends in a state with a name. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { LoraRecord } from "../../agent/lora-record.ts";
import { LoraUplink } from "../../agent/lora-uplink.ts";
import { createLoraModem, type ModemFamily, modemFamilies } from "../../drivers/lora/modem.ts";
import { decodeLoraReceipt, storedSequences } from "../../protocol/lora-receipt.ts";
import type { SimulatedModem } from "../../simulator/lora-modem.ts";
import { createRadioWorld, type ModemOptions, modemTransport } from "../../simulator/radio-world.ts";
import { loraTimingOf, VirtualTiming } from "../../simulator/simulator-timing.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";
import { epoch, LoraNode } from "./lora-node.ts";

const random = randomOfRun();
console.log(`seed ${random.seed} (ECP_TEST_SEED=${random.seed} repeats this run)`);

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const sendCommand = /SEND|MSGHEX|mac tx/;

class House {
  readonly timing = new VirtualTiming();
  readonly sealed: LoraRecord[] = [];
  readonly node = new LoraNode(this.sealed);
  readonly released = new Set<number>();
  readonly uplink: LoraUplink;
  readonly modem: SimulatedModem;
  readonly #airtime: () => { readonly worstHourMs: number; readonly excesses: number }[];
  #news: () => void = () => undefined;

  constructor(family: ModemFamily, dataRate: number, modem: ModemOptions = {}) {
    const wallMs = (ms: number): number => Date.UTC(2026, 0, 5) + ms;
    const random01 = (): number => random.uint32() / 2 ** 32;
    const world = createRadioWorld({ timing: this.timing, random: random01, wallMs, dataRate });
    this.modem = world.modem(family, modem);
    const { devEui } = world.devices[0]!;
    this.#airtime = () => [...world.airtimeOf(devEui).subBands()];
    world.onUplinkJson((topic, json) => {
      if (!topic.endsWith("/up")) return;
      const { fPort = 0, data = "", fCnt = 0, devAddr } = JSON.parse(json);
      this.node.receive(fPort, Buffer.from(data, "base64"), fCnt, this.timing.nowMs(), devAddr);
      for (let down = this.node.take(); down; down = this.node.take()) {
        const command = {
          devEui,
          confirmed: false,
          fPort: down.port,
          data: Buffer.from(down.bytes).toString("base64"),
        };
        world.command(topic.replace("event/up", "command/down"), JSON.stringify(command));
      }
    });
    const timing = loraTimingOf(this.timing, wallMs);
    let saved: Uint8Array | undefined;
    this.uplink = new LoraUplink({
      modem: createLoraModem({ openTransport: modemTransport(this.modem), family, region: "EU868", timing }),
      ...{ region: "EU868", timing, bootId: "one", random: random01 },
      source: {
        next: async (excluded) =>
          this.sealed.findLast(({ sequence }) => !this.released.has(sequence) && !excluded(epoch, sequence)),
        isStored: (_, sequence) => this.released.has(sequence),
        onNews: (listener) => {
          this.#news = listener;
        },
      },
      store: {
        read: async () => saved,
        write: async (bytes) => {
          saved = bytes;
        },
      },
      onReceipt: (bytes) => {
        for (const [first, last] of storedSequences(decodeLoraReceipt(bytes)))
          for (let sequence = first; sequence <= last; sequence++) this.released.add(sequence);
        this.#news();
      },
      onState: () => undefined,
      emit: () => undefined,
    });
    this.uplink.start();
  }

  seal(bytes: number): void {
    this.sealed.push({ epoch, sequence: this.sealed.length + 1, bytes: random.bytes(bytes) });
    this.#news();
  }

  /** Lets time pass; more than an hour in one piece would do the same, but no state in it could be seen. */
  run(ms: number): Promise<void> {
    return this.timing.advance(ms);
  }

  /** Ends what waits, so that nothing is left of it. */
  async end(): Promise<void> {
    const stopped = this.uplink.stop();
    await this.run(minuteMs);
    await stopped;
    assert.equal(this.uplink.status().condition, "stopped");
    for (const { excesses } of this.#airtime()) assert.equal(excesses, 0);
  }
}

for (const family of modemFamilies) {
  test(`${family}: joins, and sends records whole and in fragments`, async () => {
    for (const dataRate of [0, 5]) {
      const house = new House(family, dataRate);
      for (let i = 0; i < 3; i++) {
        house.seal(139);
        await house.run(hourMs);
      }
      assert.deepEqual([...house.node.stored], [1, 2, 3], `DR${dataRate}`);
      assert.ok(house.released.has(2), `DR${dataRate}`);
      assert.equal(house.uplink.status().condition, "idle");
      assert.equal(house.uplink.status().dataRate, dataRate);
      await house.end();
    }
  });

  test(`${family}: a modem that is reset, silent or spoilt in mid-command loses nothing`, async () => {
    const house = new House(family, 5);
    await house.run(minuteMs);
    house.modem.inject({ kind: "reset", command: sendCommand });
    house.seal(139);
    await house.run(hourMs);
    house.modem.inject({ kind: "silence", command: sendCommand }, { kind: "garbage-first-byte" });
    house.seal(140);
    await house.run(hourMs);
    house.modem.inject({ kind: "interjection", command: sendCommand, lines: ["+EVT:NONSENSE", "busy?"] });
    house.seal(141);
    await house.run(hourMs);
    house.seal(142);
    await house.run(hourMs);
    assert.deepEqual([...house.node.stored].sort(), [1, 2, 3, 4]);
    assert.ok([1, 2, 3].every((sequence) => house.released.has(sequence)));
    await house.end();
  });

  test(`${family}: a wrong AppKey is a state with a name, and join requests keep their distance`, async () => {
    const house = new House(family, 5, { appKey: "ffffffffffffffffffffffffffffffff" });
    house.seal(139);
    await house.run(12 * hourMs);
    const { condition, detail, joinRequests, isJoined } = house.uplink.status();
    assert.equal(condition, "not-joined");
    assert.match(detail ?? "", /AppKey|refused/); // RN2483 says "denied" for both
    assert.equal(isJoined, false);
    assert.ok(joinRequests >= 4 && joinRequests <= 20, `${joinRequests} join requests`);
    assert.equal(house.node.stored.size, 0);
    await house.end();
  });

  test(`${family}: without keys it says what to do`, async () => {
    const house = new House(family, 5, { hasKeys: false });
    house.seal(139);
    await house.run(20 * minuteMs);
    assert.equal(house.uplink.status().condition, "not-joined");
    await house.end();
  });
}
