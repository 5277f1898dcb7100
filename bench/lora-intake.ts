/**
 * A full node with many LoRaWAN devices, each with a batch an hour: what a batch costs it, from ChirpStack's event to the command with the
 * receipt, and what it keeps of a device. The hour's batches come as fast as the node takes them.
 */
import { generateKeyPairSync } from "node:crypto";
import { setImmediate as immediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { systemClock } from "../platform/clock.ts";
import { decodeRecord, noPrevious, previousBytes, type ReadingContent, signRecord } from "../protocol/record.ts";
import { chirpStackUp } from "../test/fullnode/lorawan-fixture.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { nodeKey, sha256 } from "../test/vectors/signature-suite.ts";
import type { Campaign } from "./campaign.ts";
import { framesOf } from "./lora-airtime.ts";
import { rowsPerBatch, slotS, startS } from "./lora-house.ts";
import { chirpStackSent, type EnrolledDevice, LoraNode } from "./lora-node.ts";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

/** Frames on their way through the node. */
const inFlightMax = 4_000;
const framesAtOnce = 50;
const singleFrames = 200;

/** A device with a chain of records, and the counter of its modem. */
class FieldDevice implements EnrolledDevice {
  readonly devEui: string;
  readonly publicKey: Uint8Array;
  readonly share: Uint8Array;
  readonly epoch: number;
  readonly sign: EnrolledDevice["sign"];
  #content: Omit<ReadingContent, "sequence" | "previous" | "rows">;
  #sequence = 0;
  #previous = noPrevious;
  #fCnt = 0;

  constructor(random: SeededRandom, index: number) {
    const { publicKey, sign } = nodeKey(random.bytes(32));
    this.publicKey = publicKey;
    this.sign = sign;
    const { publicKey: share } = generateKeyPairSync("x25519");
    this.share = Uint8Array.from(share.export({ format: "der", type: "spki" }).subarray(-32));
    this.epoch = random.uint32();
    this.devEui = (0xa840_4100_0000_0000n + BigInt(index)).toString(16);
    const fixed = { kind: "reading" as const, epoch: this.epoch, clockState: 0, generation: startS };
    this.#content = { ...fixed, meter: 0, plan: 1, slotS, codes: [2, 4] };
  }

  /** The events that ChirpStack publishes for its next batch, in order. */
  batch(dataRate: number): { topic: string; payload: Buffer }[] {
    const sequence = ++this.#sequence;
    const row = (i: number) => {
      const slot = sequence * rowsPerBatch + i;
      return { timeS: startS + slot * slotS, status: 0, values: [40_000_000 + 420 * slot, 50_000_000 + 310 * slot] };
    };
    const rows = Array.from({ length: rowsPerBatch }, (_, i) => row(i));
    const record = signRecord({ ...this.#content, sequence, previous: this.#previous, rows }, this.sign);
    this.#previous = decodeRecord(record, sha256).digest.slice(0, previousBytes);
    return framesOf(record, dataRate).map(({ port, bytes }) =>
      chirpStackUp(this.devEui, { fCnt: this.#fCnt++, fPort: port, bytes }),
    );
  }
}

type Figures = Record<string, number>;

/** Figures of `count` devices. Throws where a batch is not stored or not answered. */
export async function intake(campaign: Campaign, count: number): Promise<Figures> {
  const devices = Array.from({ length: count }, (_, i) => new FieldDevice(campaign.random, i));
  const node = new LoraNode();
  campaign.after(() => node.close());
  node.enrol(devices, startS * 1_000);
  campaign.say(`${count} devices are enrolled`);
  const heard = { stored: 0, downlinks: 0 };
  let heardOne: () => void = () => undefined;
  const before = heldBytes();
  await node.open({
    clock: systemClock,
    stored: () => heard.stored++,
    downlink: (downlink) => {
      heard.downlinks++;
      node.receive(chirpStackSent(downlink)); // every frame had a receive window
      heardOne();
    },
  });
  const figures: Figures = { devices: count };

  const hour = async (name: string, dataRate: number, afterFrame = Number.POSITIVE_INFINITY): Promise<void> => {
    const batches = devices.map((device) => device.batch(dataRate));
    const frames = batches[0]?.length ?? 0;
    const [stored, downlinks] = [heard.stored, heard.downlinks];
    const fromMs = performance.now();
    const cpuFrom = process.cpuUsage();
    let keptMs = 0;
    let atOnce = 0;
    for (let i = 0; i < frames; i++) {
      for (const batch of batches) {
        node.receive(batch[i] as (typeof batch)[number]);
        if (++atOnce % framesAtOnce > 0) continue;
        await immediate();
        if (atOnce % inFlightMax === 0) await node.idle();
      }
      if (i !== afterFrame) continue;
      await node.idle();
      const keptFromMs = performance.now();
      figures.openSessionBytes = Math.round((heldBytes() - held) / count);
      keptMs = performance.now() - keptFromMs;
    }
    await node.idle();
    const { user, system } = process.cpuUsage(cpuFrom);
    if (heard.stored - stored !== count || heard.downlinks - downlinks < count)
      throw new Error(
        `${name}: ${heard.stored - stored} of ${count} batches stored, ${heard.downlinks - downlinks} answered; refused: ${node.refused || "none"}`,
      );
    figures[`${name}CpuMsPerBatch`] = rounded((user + system) / 1_000 / count - keptMs / count);
    figures[`${name}BatchesPerSecond`] = Math.round((count / (performance.now() - fromMs - keptMs)) * 1_000);
    campaign.say(`${name}: ${figures[`${name}CpuMsPerBatch`]} ms of CPU a batch of ${frames} frames`);
  };

  await hour("firstHour", 5); // each device's keys are read, its MAC agreed on, the code compiled
  await hour("oneFrame", 5);
  const held = heldBytes();
  figures.heldBytesPerDevice = Math.round((held - before) / count);
  await hour("fragments", 0, 2);
  await hour("fragmentsAgain", 0);

  const waits: number[] = [];
  for (const device of devices.slice(0, singleFrames)) {
    const [frame] = device.batch(5);
    const answered = new Promise<void>((resolve) => {
      heardOne = resolve;
    });
    const fromMs = performance.now();
    node.receive(frame as NonNullable<typeof frame>);
    await answered;
    waits.push(performance.now() - fromMs);
    await node.idle();
  }
  waits.sort((a, b) => a - b);
  figures.answerMsMedian = rounded(waits[Math.floor(waits.length / 2)] ?? 0);
  figures.answerMsMax = rounded(waits.at(-1) ?? 0);
  return figures;
}

/** After garbage is collected: what JavaScript holds. The devices' own keys and frames are in it too, so only differences say something. */
function heldBytes(): number {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function rounded(value: number): number {
  return Number(value.toPrecision(3));
}
