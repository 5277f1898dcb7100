import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { guardMqttStream, MqttPacketGuard } from "../../platform/mqtt-packet-guard.ts";

const bytesMax = 65_536;

/** A packet with this remaining length (MQTT 3.1.1 §2.2.3). */
function packet(length: number): Buffer {
  const header = [0x30];
  for (let rest = length; ; rest = Math.floor(rest / 128)) {
    header.push((rest % 128) | (rest >= 128 ? 0x80 : 0));
    if (rest < 128) break;
  }
  return Buffer.concat([Buffer.from(header), Buffer.alloc(length, 0xff)]);
}

test("packets up to the limit pass in any pieces; one byte more is told", () => {
  const stream = Buffer.concat([0, 1, 127, 128, 300, 16_383, 16_384, bytesMax, 2].map(packet));
  for (const piece of [1, 2, 3, 1_000, stream.length]) {
    const guard = new MqttPacketGuard({ bytesMax });
    for (let offset = 0; offset < stream.length; offset += piece)
      assert.equal(guard.push(stream.subarray(offset, offset + piece)), undefined);
    assert.equal(guard.push(packet(bytesMax + 1).subarray(0, 4)), `a packet of ${bytesMax + 1} bytes or more`);
  }
});

test("a length of more than four bytes is told, however small", () => {
  assert.notEqual(new MqttPacketGuard({ bytesMax }).push(Buffer.from([0x30, 0x80, 0x80, 0x80, 0x80, 0x00])), undefined);
});

test("messages of QoS 2 are told where none can come, and only there", () => {
  for (const [first, told] of [
    [0x30, false], // QoS 0
    [0x3b, false], // QoS 1, duplicate and retained
    [0x34, true], // QoS 2
    [0x3d, true], // QoS 2, duplicate and retained
    [0x62, false], // PUBREL: its flags are no QoS
    [0x90, false], // SUBACK
  ] as const) {
    const bytes = Buffer.from([first, 2, 0, 0]);
    assert.equal(new MqttPacketGuard({ bytesMax, qosMax: 1 }).push(bytes) !== undefined, told, `${first}`);
    assert.equal(new MqttPacketGuard({ bytesMax }).push(bytes), undefined);
  }
});

test("a guarded stream is destroyed at the header of a packet that is too long, and told once", () => {
  const stream = new PassThrough();
  const told: string[] = [];
  guardMqttStream(stream, { bytesMax: 100 }, (got) => told.push(got));
  const read: Buffer[] = [];
  stream.on("data", (chunk) => read.push(chunk));
  stream.write(packet(100));
  assert.deepEqual([told, stream.destroyed], [[], false]);
  stream.write(Buffer.from([0x30, 0xff, 0xff, 0xff, 0x7f]));
  stream.write(Buffer.alloc(1_000));
  assert.deepEqual([told, stream.destroyed], [["a packet of 127 bytes or more"], true]);
  assert.deepEqual(Buffer.concat(read).length, 102 + 5);
});
