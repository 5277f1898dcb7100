import assert from "node:assert/strict";
import { test } from "node:test";
import { MqttPacketGuard, mqttPacketBytesMax } from "../../fullnode/mqtt-packet-guard.ts";

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
  const stream = Buffer.concat([0, 1, 127, 128, 300, 16_383, 16_384, mqttPacketBytesMax, 2].map(packet));
  for (const piece of [1, 2, 3, 1_000, stream.length]) {
    const guard = new MqttPacketGuard();
    for (let offset = 0; offset < stream.length; offset += piece)
      assert.equal(guard.push(stream.subarray(offset, offset + piece)), undefined);
    assert.equal(guard.push(packet(mqttPacketBytesMax + 1).subarray(0, 4)), mqttPacketBytesMax + 1);
  }
});

test("a length of more than four bytes is told, however small", () => {
  assert.notEqual(new MqttPacketGuard().push(Buffer.from([0x30, 0x80, 0x80, 0x80, 0x80, 0x00])), undefined);
});
