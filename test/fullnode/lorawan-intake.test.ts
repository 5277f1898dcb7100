// Frames of a LoRaWAN network server become records, and are answered by SCHC ACKs and receipts; and what else may come instead.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { type TestContext, test } from "node:test";
import { SchcSender } from "../../agent/schc-sender.ts";
import { LorawanDownlinks } from "../../fullnode/lorawan-downlinks.ts";
import type { LorawanIntakeParts } from "../../fullnode/lorawan-intake.ts";
import { LorawanSessions } from "../../fullnode/lorawan-sessions.ts";
import { thingsStack } from "../../fullnode/things-stack.ts";
import { decodeLoraReceipt, loraReceiptTypes } from "../../protocol/lora-receipt.ts";
import { fragmentPorts, receiptPort, recordPort } from "../../protocol/lorawan.ts";
import { decodeAnswer, encodeFragment } from "../../protocol/schc.ts";
import { DeviceFixture, firstTimeS, type SealedRecord } from "./device-fixture.ts";
import { chirpStackUp, LorawanFixture, packetOfRecord, type SentDownlink } from "./lorawan-fixture.ts";

const devEui = "70b3d57ed0061234";
const [port] = fragmentPorts;
const hourMs = 3_600_000;

async function openBound(t: TestContext, options: Partial<LorawanIntakeParts> = {}) {
  const lorawan = await LorawanFixture.open(t, options);
  const device = await lorawan.node.enrolled();
  assert.equal(await lorawan.node.store.lorawan.bind(devEui, device.name, 1), undefined);
  await lorawan.begin();
  return { lorawan, device };
}

function receiptIn(downlinks: readonly SentDownlink[]) {
  const [receipt, ...more] = downlinks.filter(({ fPort }) => fPort === receiptPort);
  assert.ok(receipt && more.length === 0, `${downlinks.length} downlinks, ${more.length} receipts more than one`);
  return decodeLoraReceipt(receipt.bytes);
}

function answerIn(downlinks: readonly SentDownlink[]) {
  const [answer, ...more] = downlinks.filter(({ fPort }) => fPort === port);
  assert.ok(answer && more.length === 0, `${downlinks.length} downlinks, ${more.length} answers more than one`);
  return decodeAnswer(answer.bytes);
}

/** All frames of a packet, as long as nobody answers. */
function framesOf(packet: Uint8Array, bytesMax = 51): Uint8Array[] {
  const sender = SchcSender.begin(port, packet);
  const frames: Uint8Array[] = [];
  for (;;) {
    const frame = sender.next(bytesMax, 0);
    if (frame === undefined || frame === "no-room") return frames;
    frames.push(frame.bytes);
    sender.sent(frame, 0);
  }
}

const complete = { kind: "ack", window: 0, complete: true };

test("a record in one frame is stored and answered by a receipt", async (t) => {
  const { lorawan, device } = await openBound(t);
  await lorawan.up(devEui, 0, recordPort, packetOfRecord(device.reading()));
  assert.equal(lorawan.node.count("records"), 1);
  const receipt = receiptIn(lorawan.takeDownlinks());
  assert.deepEqual([receipt.type, receipt.epoch, receipt.sequence], [1, device.epoch, 1]);
});

test("a record that contradicts the chain is kept, and answered as evidence, as often as it comes", async (t) => {
  const { lorawan, device } = await openBound(t);
  let fCnt = 0;
  const receiptFor = async (record: SealedRecord) => {
    await lorawan.up(devEui, fCnt++, recordPort, packetOfRecord(record));
    const downlinks = lorawan.takeDownlinks();
    lorawan.sent(downlinks);
    return receiptIn(downlinks);
  };
  const records = device.readings(3);
  for (const record of records) await receiptFor(record);
  device.rewind(records[0]);
  const other = device.reading({ timeS: firstTimeS + 900_000 });
  for (const _ of [1, 2]) {
    const { type, sequence, digest, bitmap } = await receiptFor(other);
    assert.deepEqual([type, sequence, bitmap], [loraReceiptTypes.evidence, 2, 0]);
    assert.deepEqual(digest, other.digest.slice(0, 8));
  }
  assert.equal(lorawan.node.count("evidence"), 1);
  const again = await receiptFor(records[2] as SealedRecord);
  assert.deepEqual([again.type, again.sequence], [loraReceiptTypes.storedBehindGap, 3], "one of the chain, again");
  device.rewind(records[2]);
  const fresh = await receiptFor(device.reading());
  assert.deepEqual([fresh.type, fresh.sequence], [loraReceiptTypes.stored, 4], "control: the chain goes on");
});

test("a record in fragments is put together, over a restart, and a receipt answers; who asks again gets the ACK too", async (t) => {
  const { lorawan, device } = await openBound(t);
  const frames = framesOf(packetOfRecord(device.reading()));
  for (const [fCnt, bytes] of frames.entries()) {
    await lorawan.up(devEui, fCnt, port, bytes);
    if (fCnt === 1) await lorawan.restart();
  }
  assert.ok(frames.length > 2);
  assert.equal(lorawan.node.count("records"), 1);
  const first = lorawan.takeDownlinks();
  assert.equal(first.length, 1, "the receipt alone: it ends the session too");
  assert.equal(receiptIn(first).sequence, 1);
  // The window was missed; the server has sent it by now, and the device asks with its All-1 again.
  lorawan.sent(first);
  await lorawan.up(devEui, frames.length, port, frames.at(-1) as Uint8Array);
  const second = lorawan.takeDownlinks();
  assert.deepEqual(answerIn(second), complete);
  assert.equal(receiptIn(second).sequence, 1);
  // Also after a restart.
  lorawan.sent(second);
  await lorawan.restart();
  await lorawan.up(devEui, frames.length + 1, port, frames.at(-1) as Uint8Array);
  assert.deepEqual(answerIn(lorawan.takeDownlinks()), complete);
  assert.equal(lorawan.node.count("records"), 1);
});

test("control: a session that is not kept in the store is lost with its process", async (t) => {
  const { lorawan, device } = await openBound(t);
  const frames = framesOf(packetOfRecord(device.reading()));
  for (const [fCnt, bytes] of frames.entries()) {
    const { topic, payload } = chirpStackUp(devEui, { fCnt, fPort: port, bytes });
    lorawan.intake.receive(topic, payload);
    if (fCnt === 1) await lorawan.restart(); // before anything was saved
  }
  await lorawan.intake.idle();
  assert.equal(lorawan.node.count("records"), 0);
  const answer = answerIn(lorawan.takeDownlinks());
  assert.ok(answer.kind === "ack" && !answer.complete, "what is missing is asked for");
});

test("nothing is acknowledged before it is stored: a store that fails leaves the device to ask again", async (t) => {
  const { lorawan, device } = await openBound(t);
  const frames = framesOf(packetOfRecord(device.reading()));
  const { store } = lorawan.node;
  let isFull = true;
  const full = Object.assign(new Error("database or disk is full"), { errcode: 13, code: "ERR_SQLITE_ERROR" });
  const failing = new Proxy(store, {
    get: (target, name) => {
      if (name === "transaction" && isFull) return () => Promise.reject(full);
      const value = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  await lorawan.node.useStore(() => failing);
  await lorawan.begin();
  for (const [fCnt, bytes] of frames.entries()) await lorawan.up(devEui, fCnt, port, bytes);
  assert.deepEqual(lorawan.takeDownlinks(), []);
  isFull = false;
  await lorawan.up(devEui, frames.length, port, frames.at(-1) as Uint8Array);
  assert.equal(receiptIn(lorawan.takeDownlinks()).sequence, 1);
});

test("a packet that was whole when the node ended is handed over at the next start", async (t) => {
  const { lorawan, device } = await openBound(t);
  const frames = framesOf(packetOfRecord(device.reading()));
  const ignored = Object.assign(Object.create(lorawan.node.path), {
    push: () => undefined,
    idle: async () => undefined,
  });
  await lorawan.begin({ path: ignored });
  for (const [fCnt, bytes] of frames.entries()) await lorawan.up(devEui, fCnt, port, bytes);
  assert.equal(lorawan.node.count("records"), 0);
  await lorawan.restart();
  await lorawan.intake.idle();
  assert.equal(lorawan.node.count("records"), 1);
});

test("frames that came before, or are of another LoRaWAN session, are told apart", async (t) => {
  const { lorawan, device } = await openBound(t);
  const up = (fCnt: number, more: Record<string, unknown> = {}) => {
    const bytes = packetOfRecord(device.reading());
    const { topic, payload } = chirpStackUp(devEui, { fCnt, fPort: recordPort, bytes }, more);
    lorawan.intake.receive(topic, payload);
  };
  up(100);
  up(100); // another gateway's copy, or a bridge's
  up(101);
  up(99); // late
  up(99);
  up(60); // of long ago
  await lorawan.intake.idle();
  assert.deepEqual(lorawan.intake.counts.refused, { duplicate: 2, replayed: 1 });
  assert.equal(lorawan.intake.counts.frames.record, 3);
  up(0, { devAddr: "01020305" }); // joined again
  up(0, { devAddr: "01020305" });
  await lorawan.intake.idle();
  assert.equal(lorawan.intake.counts.frames.record, 4);
  // The same address again, but the server has said that it joined.
  const { payload } = chirpStackUp(devEui, { fCnt: 0 }, { devAddr: "01020305" });
  lorawan.intake.receive(chirpStackUp(devEui, { fCnt: 0 }).topic.replace(/up$/, "join"), payload);
  up(0, { devAddr: "01020305" });
  await lorawan.intake.idle();
  assert.equal(lorawan.intake.counts.frames.record, 5);
  const [binding] = await lorawan.node.store.lorawan.bindings();
  assert.deepEqual([binding?.devAddr, binding?.fCnt, binding?.joins], ["01020305", 0, 3]);
});

test("foreign and malformed frames are refused by name and counted", async (t) => {
  const { lorawan } = await openBound(t);
  const stranger = "0000000000000001";
  await lorawan.up(stranger, 0, recordPort, Uint8Array.of(1));
  await lorawan.up(devEui, 1, 110, Uint8Array.of(1));
  await lorawan.up(devEui, 2, recordPort, Uint8Array.of(7, 1, 2));
  await lorawan.up(devEui, 3, recordPort, Uint8Array.of(101));
  await lorawan.up(devEui, 4, port, Uint8Array.of(0x3f, 1, 2)); // an All-1 without a whole RCS
  await lorawan.up(devEui, 5, 0, Uint8Array.of(3));
  lorawan.intake.receive("application/x/device/y/event/up", Buffer.from("{}"));
  const { refused, frames } = lorawan.intake.counts;
  assert.deepEqual(refused, {
    ...{ "unknown-device": 1, "foreign-port": 1, "bad-packet": 2, "bad-fragment": 1, "foreign-topic": 1 },
  });
  assert.deepEqual(frames, { record: 2, fragment: 0, empty: 1 });
  assert.match(lorawan.node.logLines.join("\n"), /no device is bound to this DevEUI.*0000000000000001/);
  // A DevEUI that is bound while the node runs is known soon.
  const other = await lorawan.node.enrolled();
  await lorawan.node.store.lorawan.bind(stranger, other.name, 1);
  lorawan.expectChanges();
  await lorawan.intake.lookAround();
  await lorawan.up(stranger, 1, recordPort, packetOfRecord(other.reading()));
  assert.equal(receiptIn(lorawan.takeDownlinks()).sequence, 1);
});

test("a record of another device, or with a signature that does not hold, ends the session by a Receiver-Abort", async (t) => {
  const { lorawan } = await openBound(t);
  const frames = framesOf(packetOfRecord(new DeviceFixture().reading()));
  for (const [fCnt, bytes] of frames.entries()) await lorawan.up(devEui, fCnt, port, bytes);
  assert.deepEqual(answerIn(lorawan.takeDownlinks()), { kind: "receiver-abort" });
  assert.equal(lorawan.node.count("records"), 0);
  assert.deepEqual(lorawan.node.refusals(), ["signature-invalid"]);
  // Junk that SCHC has put together correctly.
  const junk = framesOf(Uint8Array.of(99, ...randomBytes(150)));
  for (const [i, bytes] of junk.entries()) await lorawan.up(devEui, 100 + i, port, bytes);
  assert.deepEqual(lorawan.intake.counts.refused, { "bad-packet": 1 });
});

test("a malicious All-1 and tiles of two packets give no wrong packet, and memory stays bounded", async (t) => {
  const { lorawan, device } = await openBound(t);
  const [first, second] = [device.reading(), device.reading()].map((record) => framesOf(packetOfRecord(record)));
  assert.ok(first && second);
  let fCnt = 0;
  for (const bytes of first.slice(0, -1)) await lorawan.up(devEui, fCnt++, port, bytes);
  const allOne = encodeFragment({ kind: "all-1", window: 3, rcs: 0xdead_beef, tile: Uint8Array.of(1) });
  await lorawan.up(devEui, fCnt++, port, allOne);
  const told = answerIn(lorawan.takeDownlinks());
  assert.ok(told.kind === "ack" && !told.complete);
  for (const bytes of second) await lorawan.up(devEui, fCnt++, port, bytes);
  assert.equal(lorawan.node.count("records"), 1, "the packet that came whole after it");
  // A flood of random fragments on all ports: four sessions at most, and none of it reaches the record path.
  for (let i = 0; i < 400; i++) {
    const bytes = randomBytes(1 + (i % 51));
    const { topic, payload } = chirpStackUp(devEui, { fCnt: fCnt++, fPort: fragmentPorts[i % 4] as number, bytes });
    lorawan.intake.receive(topic, payload);
  }
  await lorawan.intake.idle();
  assert.ok(lorawan.intake.counts.sessions <= 4);
  assert.equal(lorawan.node.count("records"), 1);
  const waiting = lorawan.takeDownlinks().length;
  assert.ok(waiting < 200, `${waiting} downlinks`);
});

test("a modem that is moved to another device while the node runs begins anew", async (t) => {
  const { lorawan, device } = await openBound(t);
  const frames = framesOf(packetOfRecord(device.reading()));
  await lorawan.up(devEui, 70, port, frames[0] as Uint8Array);
  const other = await lorawan.node.enrolled();
  assert.equal(await lorawan.node.store.lorawan.unbind(devEui), true);
  await lorawan.node.store.lorawan.bind(devEui, other.name, 2);
  lorawan.expectChanges();
  await lorawan.intake.lookAround();
  assert.equal(lorawan.intake.counts.sessions, 0);
  for (const [i, bytes] of framesOf(packetOfRecord(other.reading())).entries())
    await lorawan.up(devEui, i, port, bytes);
  assert.equal(receiptIn(lorawan.takeDownlinks()).sequence, 1);
  assert.deepEqual(lorawan.intake.counts.refused, {});
});

test("after twelve hours of silence a session is forgotten, in the store too", async (t) => {
  const { lorawan, device } = await openBound(t);
  const frames = framesOf(packetOfRecord(device.reading()));
  await lorawan.up(devEui, 0, port, frames[0] as Uint8Array);
  assert.equal(lorawan.node.count("lorawan_sessions"), 1);
  lorawan.pass(12 * hourMs + 1);
  await lorawan.intake.lookAround();
  await lorawan.intake.idle();
  assert.equal(lorawan.intake.counts.sessions, 0);
  assert.equal(lorawan.node.count("lorawan_sessions"), 0);
  // The time that the node was away counts.
  await lorawan.up(devEui, 1, port, frames[0] as Uint8Array);
  lorawan.pass(12 * hourMs + 1);
  await lorawan.restart();
  assert.equal(lorawan.intake.counts.sessions, 0);
  await lorawan.intake.stop();
  assert.equal(lorawan.node.count("lorawan_sessions"), 0);
});

test("where downlinks are scarce one receipt in so many hours speaks of all; who sends again gets one at once", async (t) => {
  const { lorawan, device } = await openBound(t, { receipts: 3 });
  const records = Array.from({ length: 4 }, () => packetOfRecord(device.reading()));
  await lorawan.up(devEui, 0, recordPort, records[0] as Uint8Array);
  assert.equal(receiptIn(lorawan.takeDownlinks()).sequence, 1);
  lorawan.pass(hourMs);
  await lorawan.up(devEui, 1, recordPort, records[1] as Uint8Array);
  assert.deepEqual(lorawan.takeDownlinks(), []);
  lorawan.pass(hourMs);
  await lorawan.restart(); // when the last one was is not forgotten
  for (const [i, bytes] of framesOf(records[2] as Uint8Array).entries()) await lorawan.up(devEui, 2 + i, port, bytes);
  assert.deepEqual(answerIn(lorawan.takeDownlinks()), complete);
  await lorawan.up(devEui, 20, recordPort, records[1] as Uint8Array);
  assert.equal(receiptIn(lorawan.takeDownlinks()).sequence, 3);
  lorawan.pass(3 * hourMs);
  await lorawan.up(devEui, 21, recordPort, records[3] as Uint8Array);
  assert.equal(lorawan.takeDownlinks().length, 0, "the one before has not been sent yet");
});

test("of each kind one downlink waits at a server that cannot replace them, and the newest goes when that has gone", async (t) => {
  const { lorawan, device } = await openBound(t);
  for (let fCnt = 0; fCnt < 3; fCnt++) await lorawan.up(devEui, fCnt, recordPort, packetOfRecord(device.reading()));
  const first = lorawan.takeDownlinks();
  assert.equal(receiptIn(first).sequence, 1);
  lorawan.sent(first);
  const next = lorawan.takeDownlinks();
  assert.equal(receiptIn(next).sequence, 3, "the newest, not the one between");
  // One that is somebody else's changes nothing; one that failed makes room.
  lorawan.sent([{ ...(next[0] as SentDownlink), id: "00000000-0000-4000-8000-000000000000" }]);
  await lorawan.up(devEui, 3, recordPort, packetOfRecord(device.reading()));
  assert.deepEqual(lorawan.takeDownlinks(), []);
  lorawan.failed(next, "EXPIRED");
  assert.equal(receiptIn(lorawan.takeDownlinks()).sequence, 4);
  // Nothing is heard of it: after some uplinks it has gone or is lost.
  for (let fCnt = 4; fCnt < 9; fCnt++) await lorawan.up(devEui, fCnt, recordPort, packetOfRecord(device.reading()));
  assert.equal(lorawan.takeDownlinks().length, 1);
  assert.deepEqual(lorawan.intake.counts.downlinks, { queued: 4, sent: 1, failed: 1 });
});

test("without a connection to the server nothing waits for it: the device asks again", async (t) => {
  const { lorawan, device } = await openBound(t);
  lorawan.isConnected = false;
  await lorawan.up(devEui, 0, recordPort, packetOfRecord(device.reading()));
  lorawan.isConnected = true;
  await lorawan.up(devEui, 1, recordPort, packetOfRecord(device.reading()));
  assert.equal(receiptIn(lorawan.takeDownlinks()).sequence, 2);
});

test("records behind a gap are named by a receipt that releases nothing", async (t) => {
  const { lorawan, device } = await openBound(t);
  const records = Array.from({ length: 40 }, () => packetOfRecord(device.reading()));
  await lorawan.up(devEui, 0, recordPort, records[39] as Uint8Array);
  const receipt = receiptIn(lorawan.takeDownlinks());
  assert.deepEqual([receipt.type, receipt.sequence], [2, 40]);
});

test("a record that is refused for what may change is tried again when its device asks again", async (t) => {
  const { lorawan, device } = await openBound(t);
  const { path } = lorawan.node;
  // As where the rotation that makes the record's key known has not come yet.
  const refusing = {
    push: (_topic: string, _record: Uint8Array, answered?: (answer: { outcome: "unknown-key" }) => void) =>
      answered?.({ outcome: "unknown-key" }),
    idle: async () => undefined,
  };
  let isRefusing = true;
  await lorawan.begin({
    path: {
      push: (topic, record, answered) => (isRefusing ? refusing : path).push(topic, record, answered),
      idle: () => path.idle(),
    },
  });
  const frames = framesOf(packetOfRecord(device.reading()));
  let fCnt = 0;
  for (const bytes of frames) await lorawan.up(devEui, fCnt++, port, bytes);
  assert.deepEqual(answerIn(lorawan.takeDownlinks()), { kind: "receiver-abort" });
  isRefusing = false;
  lorawan.pass(hourMs);
  for (const bytes of frames) await lorawan.up(devEui, fCnt++, port, bytes);
  const downlinks = lorawan.takeDownlinks();
  assert.equal(receiptIn(downlinks).sequence, 1);
  assert.equal(lorawan.node.count("records"), 1);
});

test("a modem has one place where downlinks wait for it, however many names its server gives it", () => {
  const downlinks: string[] = [];
  const lorawan = new LorawanDownlinks({
    server: thingsStack("meters@ttn"),
    publish: ({ topic }) => downlinks.push(topic) > 0,
    clock: { wallMs: () => 0, monotonicMs: () => 0 },
    newId: () => "00000000-0000-4000-8000-000000000000",
  });
  for (let i = 0; i < 1_000; i++)
    lorawan.queue({ devEui, topic: `v3/meters@ttn/devices/d${i}` }, "answer", port, Uint8Array.of(i));
  assert.equal(lorawan.size, 1);
  assert.equal(downlinks.length, 1_000, "all were answered");
  lorawan.queue({ devEui: "0000000000000001", topic: "v3/meters@ttn/devices/other" }, "answer", port, Uint8Array.of(1));
  assert.equal(lorawan.size, 2, "control: another modem");
});

test("where there are too many sessions, what is answered makes room for who is not", () => {
  const sessions = new LorawanSessions({ wallMs: () => 0, monotonicMs: () => 0 }, 3);
  const take = (name: string, isStored: boolean): boolean => {
    const receiver = sessions.receiverFor(name, port);
    const packet = Uint8Array.of(100, 1, 2, 3);
    if (receiver === undefined) return false;
    for (const [fCnt, bytes] of framesOf(packet).entries())
      if (isStored || bytes.length === 1) receiver.receive(bytes, fCnt, 0, "1");
      else receiver.receive(encodeFragment({ kind: "ack-request", window: 0 }), fCnt, 0, "1");
    if (isStored) receiver.stored(0, packet);
    sessions.changed(name, port);
    return true;
  };
  assert.ok(take("a", false) && take("b", true) && take("c", true));
  assert.ok(take("d", false) && take("e", false));
  assert.deepEqual(
    ["a", "b", "c", "d", "e"].map((name) => sessions.get(name, port) !== undefined),
    [true, false, false, true, true],
  );
  assert.equal(take("f", true), false, "control: the others are in the middle of their packets");
  assert.deepEqual(
    sessions.takeChanges().ended.map(({ devEui: name }) => name),
    ["b", "c"],
  );
});
