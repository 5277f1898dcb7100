import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { DriverError } from "../../drivers/failure.ts";
import type { RegionName } from "../../drivers/lora/region.ts";
import { fragmentPorts, receiptPort, recordPort } from "../../protocol/lorawan.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";
import { LoraWorld } from "./lora-world.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;

function world(t: TestContext, region: RegionName = "EU868"): LoraWorld {
  const random = randomOfRun();
  t.diagnostic(`ECP_TEST_SEED=${random.seed}`);
  const made = new LoraWorld(random, region);
  t.after(() => made.process.kill());
  return made;
}

test("a record that fits goes in one frame, and its receipt comes in the windows of that frame", async (t) => {
  const here = world(t);
  here.dataRate = 5;
  here.seal(155);
  const uplink = here.start();
  await here.machine.run(minuteMs);
  assert.deepEqual([...here.released], [1]);
  assert.deepEqual(
    here.frames.map(({ port }) => port),
    [recordPort],
  );
  const status = uplink.status();
  assert.equal(status.condition, "idle");
  assert.equal(status.awaitingReceipt, 0);
  assert.equal(status.dataRate, 5);
  assert.equal(status.framesSent, 1);
  assert.equal(status.receipts, 1);
  assert.equal(status.modem, "rui3, 4.2.0");
});

test("a record that does not fit goes in fragments; the acknowledgement ends the session, the receipt the record", async (t) => {
  const here = world(t);
  here.seal(139);
  const uplink = here.start();
  await here.machine.run(10 * minuteMs);
  assert.deepEqual(
    here.frames.map(({ port, bytes }) => [port, bytes.length]),
    [
      [20, 51],
      [20, 51],
      [20, 31],
      [20, 15],
    ],
  );
  assert.deepEqual(
    here.events.filter(({ event }) => event === "session-ended"),
    [{ event: "session-ended", port: 20, epoch: 7, sequence: 1, outcome: "acknowledged" }],
  );
  assert.equal(uplink.status().awaitingReceipt, 1); // the receipt waits for the next uplink
  here.seal(139);
  await here.machine.run(20 * minuteMs);
  assert.deepEqual([...here.released], [1]);
  assert.equal(here.frames.length, 8);
  assert.equal(here.frames.at(-1)?.port, 24);
});

test("losses both ways: every record arrives and is released, in frames and in fragments", async (t) => {
  for (const dataRate of [0, 5]) {
    const here = world(t);
    Object.assign(here, { dataRate, lossUp: 0.2, lossDown: 0.2 });
    here.start();
    for (let hour = 0; hour < 48; hour++) {
      here.seal(139);
      await here.machine.run(here.machine.nowMs + hourMs);
    }
    // Receipts come with later batches, so that those of the last ones are still on their way.
    for (let sequence = 1; sequence <= 36; sequence++) {
      assert.ok(here.stored.has(sequence), `DR${dataRate}: ${sequence} stored`);
      assert.ok(here.released.has(sequence), `DR${dataRate}: ${sequence} released`);
    }
    assert.ok(here.fullestMs(hourMs) <= 36_000);
  }
});

test("a new record goes before repeats and before what waits from before", async (t) => {
  const here = world(t);
  Object.assign(here, { dataRate: 5, isDeaf: true });
  for (let i = 0; i < 3; i++) here.seal(100 + i);
  here.start();
  await here.machine.run(minuteMs);
  here.seal(110);
  await here.machine.run(2 * minuteMs);
  assert.deepEqual(
    here.frames.map(({ bytes }) => bytes.length - 1),
    [102, 100, 101, 110],
  );
});

test("a record that nothing names is repeated at growing distances, at last every 12 h, and never dropped", async (t) => {
  const here = world(t);
  Object.assign(here, { dataRate: 5, isDeaf: true });
  here.seal(100);
  const uplink = here.start({ linkDeadAfterMs: 0 });
  await here.machine.run(72 * hourMs);
  const gapsMs = here.frames.slice(1).map(({ startMs }, i) => startMs - (here.frames[i]?.startMs ?? 0));
  assert.ok(gapsMs.slice(0, 3).every((gapMs) => gapMs < hourMs));
  assert.ok(gapsMs.slice(8).every((gapMs) => gapMs >= 8.9 * hourMs && gapMs <= 15.1 * hourMs));
  assert.equal(uplink.status().awaitingReceipt, 1);
  here.isDeaf = false;
  await here.machine.run(96 * hourMs);
  assert.deepEqual([...here.released], [1]);
});

test("a receipt that does not name an earlier record has it sent again at once", async (t) => {
  const here = world(t);
  Object.assign(here, { dataRate: 5, lossUp: 1 });
  here.seal(100);
  here.start();
  await here.machine.run(minuteMs);
  here.lossUp = 0;
  here.seal(101);
  await here.machine.run(2 * minuteMs);
  assert.deepEqual(
    here.frames.map(({ bytes }) => bytes.length - 1),
    [100, 101, 100],
  );
  assert.equal(here.released.size, 2);
});

test("with a link that says nothing, four sessions do not stop a fifth record: the oldest one gives its port", async (t) => {
  const here = world(t);
  here.isDeaf = true;
  here.start({ linkDeadAfterMs: 0 });
  for (let hour = 0; hour < 8; hour++) {
    here.seal(139);
    await here.machine.run(here.machine.nowMs + hourMs);
  }
  assert.equal(here.stored.size, 8);
  const displaced = here.events.filter((event) => event.event === "session-ended" && event.outcome === "displaced");
  assert.ok(displaced.length >= 4);
  assert.ok(here.fullestMs(hourMs) <= 36_000);
  here.isDeaf = false;
  await here.machine.run(here.machine.nowMs + 48 * hourMs);
  assert.equal(here.released.size, 8);
});

test("a record larger than a SCHC packet is told of once, and waits for another uplink", async (t) => {
  const here = world(t);
  here.dataRate = 5;
  here.seal(2_520);
  here.seal(2_519);
  const uplink = here.start();
  await here.machine.run(hourMs);
  here.start();
  await here.machine.run(2 * hourMs);
  assert.deepEqual(
    here.events.filter(({ event }) => event === "too-large"),
    [{ event: "too-large", epoch: 7, sequence: 1, bytes: 2_521 }],
  );
  assert.deepEqual([...here.stored], [2]);
  assert.equal(uplink.status().tooLarge, 1);
});

test("12 h of silence: a session ends by its name, and the record is sent anew", async (t) => {
  const here = world(t);
  here.isDeaf = true;
  here.seal(139);
  here.start({ linkDeadAfterMs: 0 });
  await here.machine.run(72 * hourMs);
  const ended = here.events.filter((event) => event.event === "session-ended");
  assert.equal(ended[0]?.outcome, "unacknowledged");
  assert.ok(here.events.filter((event) => event.event === "record").length >= 2);
  here.isDeaf = false;
  await here.machine.run(120 * hourMs);
  assert.deepEqual([...here.released], [1]);
});

test("a session that asked in vain for hours asks again soon after anything came down", async (t) => {
  const here = world(t);
  here.isDeaf = true;
  here.seal(139);
  here.start();
  await here.machine.run(2.5 * hourMs);
  const before = here.frames.length;
  await here.machine.run(2.7 * hourMs);
  assert.equal(here.frames.length, before);
  here.isDeaf = false;
  here.hears({ port: 21, bytes: Uint8Array.of(1) });
  await here.machine.run(2.7 * hourMs + 6 * minuteMs);
  assert.equal(here.frames.length, before + 1);
  assert.ok(here.events.some((event) => event.event === "session-ended" && event.outcome !== "unacknowledged"));
});

test("the data rate slides in mid-record: the frames follow, down to 11 bytes", async (t) => {
  const here = world(t, "US915");
  here.dataRate = 1;
  here.seal(200);
  here.start();
  await here.machine.run(1_500, () => here.frames.length === 1);
  here.dataRate = 0;
  await here.machine.run(2 * hourMs);
  assert.equal(here.frames[0]?.bytes.length, 51);
  assert.ok(here.frames.slice(1).every(({ bytes }) => bytes.length <= 11));
  assert.deepEqual([...here.stored], [1]);
});

test("busy and duty cycle of the modem: waits as long as it says, else at growing distances, and loses nothing", async (t) => {
  const here = world(t);
  here.dataRate = 5;
  here.outcomes.push({ kind: "busy" }, { kind: "duty-cycle", retryInMs: 90_000 }, { kind: "duty-cycle" });
  here.seal(139);
  const uplink = here.start();
  await here.machine.run(30_000);
  assert.equal(uplink.status().condition, "modem-refuses");
  assert.ok((uplink.status().resumesInMs ?? 0) > 60_000);
  assert.equal(uplink.status().airtimeHourMs, 0);
  await here.machine.run(10 * minuteMs);
  assert.deepEqual([...here.released], [1]);
  assert.equal(here.frames.length, 1);
});

test("too long: the same frame again after an empty one went, a shorter one where that did not help", async (t) => {
  const here = world(t);
  here.dataRate = 5;
  here.outcomes.push({ kind: "too-long", emptyFrameSent: true });
  here.seal(139);
  here.start();
  await here.machine.run(minuteMs);
  assert.deepEqual(
    here.frames.map(({ bytes }) => bytes.length),
    [140],
  );
  here.outcomes.push({ kind: "too-long", emptyFrameSent: false }, { kind: "too-long", emptyFrameSent: false });
  here.seal(139);
  await here.machine.run(10 * minuteMs);
  assert.deepEqual(
    here.frames.slice(1).map(({ bytes }) => bytes.length),
    [101, 31, 15], // in fragments
  );
  assert.equal(here.stored.size, 2);
  here.outcomes.push({ kind: "too-long", bytesMax: 60, emptyFrameSent: false });
  here.seal(139);
  await here.machine.run(20 * minuteMs);
  assert.equal(here.frames[4]?.bytes.length, 51);
});

test("the modem says that it has not joined: it joins, and the frame goes again", async (t) => {
  const here = world(t);
  here.dataRate = 5;
  here.outcomes.push({ kind: "not-joined" });
  here.seal(139);
  here.start();
  await here.machine.run(1_000, () => here.joins.length === 1);
  await here.machine.run(minuteMs);
  assert.deepEqual([...here.released], [1]);
});

test("the modem is reset in mid-command: it is begun anew, and the frame goes again", async (t) => {
  const here = world(t);
  here.dataRate = 5;
  here.seal(139);
  const uplink = here.start();
  here.outcomes.push({ kind: "fault", detail: "no +EVT:TX_DONE after OK" });
  await here.machine.run(200);
  here.loseModem("the modem was reset");
  here.beginFailure = new DriverError("port-not-found", "LoRaWAN modem at /dev/ttyUSB9: expected a port, found none");
  await here.machine.run(minuteMs);
  assert.equal(uplink.status().condition, "modem-away");
  assert.match(uplink.status().detail ?? "", /expected a port/);
  assert.equal(uplink.status().isJoined, false);
  here.beginFailure = undefined;
  await here.machine.run(30 * minuteMs);
  assert.deepEqual([...here.released], [1]);
  assert.equal(uplink.status().condition, "idle");
});

test("the hour's airtime is used up: the state says until when, and then it goes on", async (t) => {
  const here = world(t);
  for (let i = 0; i < 4; i++) here.seal(600);
  const uplink = here.start();
  await here.machine.run(10 * minuteMs);
  const { condition, detail, resumesInMs = 0, dutyCycle } = uplink.status();
  assert.equal(condition, "duty-cycle");
  assert.match(detail ?? "", /law/);
  assert.ok(resumesInMs > 45 * minuteMs && resumesInMs < hourMs);
  assert.ok(dutyCycle && dutyCycle.limitMs === 36_000 && dutyCycle.spentMs > 30_000);
  await here.machine.run(8 * hourMs);
  assert.equal(here.stored.size, 4);
  assert.ok(here.fullestMs(hourMs) <= 36_000);
});

test("the day's fair use is used up: the state says until when; the newest record goes first then", async (t) => {
  const here = world(t);
  here.seal(600);
  const uplink = here.start({ fairUseSPerDay: 40 });
  await here.machine.run(2 * hourMs);
  here.seal(138);
  await here.machine.run(3 * hourMs);
  const { condition, resumesInMs = 0, fairUse } = uplink.status();
  assert.equal(condition, "fair-use");
  assert.ok(resumesInMs > 19 * hourMs);
  assert.ok(fairUse && fairUse.limitMs === 40_000 && fairUse.spentMs > 30_000);
  here.seal(137);
  await here.machine.run(26 * hourMs);
  assert.ok(here.stored.has(3));
});

test("an allowance that one frame would exceed: the state says that it never goes", async (t) => {
  const here = world(t);
  here.seal(139);
  const uplink = here.start({ fairUseSPerDay: 1 });
  await here.machine.run(hourMs);
  assert.equal(uplink.status().condition, "fair-use");
  assert.match(uplink.status().detail ?? "", /longer than the whole allowance/);
  assert.equal(here.frames.length, 0);
});

test("MAC commands fill the frame: an empty one takes them along, and then the record goes", async (t) => {
  const here = world(t);
  Object.assign(here, { dataRate: 5, room: 0 });
  here.seal(139);
  const uplink = here.start();
  await here.machine.run(5_000);
  assert.equal(uplink.status().condition, "no-room");
  await here.machine.run(5 * minuteMs);
  assert.deepEqual(
    here.frames.map(({ bytes }) => bytes.length),
    [0, 140],
  );
  assert.deepEqual([...here.released], [1]);
});

test("the wallet cannot be asked: the state says so, and it is asked again", async (t) => {
  const here = world(t);
  here.dataRate = 5;
  here.sourceFailure = new Error("the wallet is away");
  here.seal(139);
  const uplink = here.start();
  await here.machine.run(minuteMs);
  assert.equal(uplink.status().condition, "no-records");
  here.sourceFailure = undefined;
  await here.machine.run(2 * minuteMs);
  assert.deepEqual([...here.released], [1]);
});

test("the state file cannot be written: nothing is sent, and the state says why", async (t) => {
  const here = world(t);
  here.dataRate = 5;
  here.storeFailure = new Error("ENOSPC: no space left on device");
  here.seal(139);
  const uplink = here.start();
  await here.machine.run(10 * minuteMs);
  assert.equal(uplink.status().condition, "state-unwritable");
  assert.match(uplink.status().detail ?? "", /ENOSPC/);
  assert.equal(here.frames.length, 0);
  here.storeFailure = undefined;
  await here.machine.run(15 * minuteMs);
  assert.deepEqual([...here.released], [1]);
});

test("a spoilt state file begins anew, and an hour passes before the next frame", async (t) => {
  const here = world(t);
  here.dataRate = 5;
  here.saved = new TextEncoder().encode("ECPLORA1 and nothing that makes sense");
  here.seal(139);
  const uplink = here.start();
  await here.machine.run(59 * minuteMs);
  assert.ok(here.events.some(({ event }) => event === "state-spoilt"));
  assert.equal(uplink.status().condition, "duty-cycle");
  assert.ok((uplink.status().resumesInMs ?? 0) > 0);
  assert.equal(here.frames.length, 0);
  await here.machine.run(62 * minuteMs);
  assert.deepEqual([...here.released], [1]);
});

test("downlinks on other ports, or of no session, are counted and ignored", async (t) => {
  const here = world(t);
  here.dataRate = 5;
  const uplink = here.start();
  await here.machine.run(1_000);
  here.hears({ port: 21, bytes: Uint8Array.of(1) });
  here.hears({ port: fragmentPorts[0], bytes: Uint8Array.of(0x20) });
  const { downlinks, downlinksIgnored } = uplink.status();
  assert.deepEqual([downlinks, downlinksIgnored], [2, 2]);
});

test("a receipt that cannot be read is the wallet's to refuse, and hurts nobody", async (t) => {
  const here = world(t);
  const receipts: Uint8Array[] = [];
  here.start({ onReceipt: (bytes) => receipts.push(bytes) });
  await here.machine.run(1_000);
  here.hears({ port: receiptPort, bytes: Uint8Array.of(9, 9) });
  await here.machine.run(2_000);
  assert.deepEqual(receipts, [Uint8Array.of(9, 9)]);
});

test("stop ends a long rest at once, and says so", async (t) => {
  const here = world(t);
  const uplink = here.start();
  await here.machine.run(1_000);
  assert.equal(uplink.status().condition, "idle");
  let isStopped = false;
  void uplink.stop().then(() => {
    isStopped = true;
  });
  await here.machine.run(1_100, () => isStopped);
  assert.equal(uplink.status().condition, "stopped");
});

test("the data rate is known before the first frame: how long a batch is hangs on it", async (t) => {
  const here = world(t);
  here.dataRate = 5;
  const uplink = here.start();
  await here.machine.run(minuteMs);
  assert.equal(uplink.dataRate, 5);
  here.joined = false;
  const joins = here.start();
  await here.machine.run(2 * minuteMs);
  assert.equal(here.joins.length, 1);
  assert.equal(joins.dataRate, 5);
  assert.equal(here.frames.length, 0);
});

for (const isTold of [true, false])
  test(`frames that a server has repeated ${isTold ? "count as often as they go" : "are over the law's limit where nobody counts them (control)"}`, async (t) => {
    const here = world(t);
    here.transmissions = 3;
    here.tellsTransmissions = isTold;
    for (let record = 0; record < 12; record++) here.seal(139);
    here.start();
    await here.machine.run(3 * hourMs);
    const fullest = here.fullestMs(hourMs);
    // The first frame after the change is not known to be repeated until it has gone: nothing was spent then.
    if (isTold) assert.ok(fullest <= 36_000, `${fullest} ms`);
    else assert.ok(fullest > 36_000, `${fullest} ms`);
  });
