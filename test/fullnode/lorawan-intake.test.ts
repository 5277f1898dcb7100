// Frames of a LoRaWAN network server become records, and are answered by SCHC ACKs and receipts.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SchcSender } from "../../agent/schc-sender.ts";
import { decodeLoraReceipt } from "../../protocol/lora-receipt.ts";
import { receiptPort, recordPort } from "../../protocol/lorawan.ts";
import { decodeAnswer } from "../../protocol/schc.ts";
import { LorawanFixture, packetOfRecord } from "./lorawan-fixture.ts";

const devEui = "70b3d57ed0061234";

async function bound(lorawan: LorawanFixture) {
  const device = await lorawan.node.enrolled();
  assert.equal(await lorawan.node.store.lorawan.bind(devEui, device.name, 1), undefined);
  await lorawan.begin();
  return device;
}

test("a record in one frame is stored and answered by a receipt", async (t) => {
  const lorawan = await LorawanFixture.open(t);
  const device = await bound(lorawan);
  await lorawan.up(devEui, 0, recordPort, packetOfRecord(device.reading()));
  assert.equal(lorawan.node.count("records"), 1);
  const [down, ...more] = lorawan.takeDownlinks();
  assert.deepEqual([more.length, down?.fPort, down?.devEui], [0, receiptPort, devEui]);
  const receipt = decodeLoraReceipt(down?.bytes ?? new Uint8Array());
  assert.deepEqual([receipt.type, receipt.epoch, receipt.sequence], [1, device.epoch, 1]);
});

test("a record in fragments is put together, over a restart, and answered", async (t) => {
  const lorawan = await LorawanFixture.open(t);
  const device = await bound(lorawan);
  const sender = SchcSender.begin(20, packetOfRecord(device.reading()));
  let fCnt = 0;
  for (let nowMs = 0; ; nowMs += 1_000) {
    const frame = sender.next(51, nowMs);
    if (frame === undefined || frame === "no-room") break;
    await lorawan.up(devEui, fCnt++, 20, frame.bytes);
    sender.sent(frame, nowMs);
    if (fCnt === 2) await lorawan.restart();
  }
  assert.ok(fCnt > 2);
  assert.equal(lorawan.node.count("records"), 1);
  const [receipt, ...more] = lorawan.takeDownlinks();
  assert.deepEqual([more.length, receipt?.fPort], [0, receiptPort]);
  const again = sender.next(51, 3_600_000);
  assert.ok(again !== undefined && again !== "no-room");
  await lorawan.up(devEui, fCnt++, 20, again.bytes);
  const [answer] = lorawan.takeDownlinks();
  assert.deepEqual(
    [answer?.fPort, decodeAnswer(answer?.bytes ?? new Uint8Array())],
    [20, { kind: "ack", window: 0, complete: true }],
  );
});
