import assert from "node:assert/strict";
import { test } from "node:test";
import {
  answerLength,
  crc16,
  encodeReadRequest,
  encodeRtuFrame,
  hasValidCrc,
  RtuParser,
  replyLengthOf,
  requestLength,
} from "../../drivers/modbus/rtu-frame.ts";

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));
const answer = encodeRtuFrame(1, hex("04 04 43 66 33 34"));

function parse(bytes: Uint8Array, pieces: readonly number[] = []): { frames: string[]; rejected: number } {
  const parser = new RtuParser(answerLength);
  const frames: string[] = [];
  let start = 0;
  for (const piece of [...pieces, bytes.length]) {
    for (const frame of parser.push(bytes.subarray(start, start + piece))) {
      frames.push(Buffer.from(frame).toString("hex"));
    }
    start += piece;
  }
  return { frames, rejected: parser.rejectedBytes };
}

const joined = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((part) => [...part]));

test("the CRC of the specification's own example and of the catalogue's check string", () => {
  // "MODBUS over Serial Line" V1.02 appendix B: 02 07 gives 0x1241, sent 41 12.
  assert.equal(crc16(hex("02 07")), 0x1241);
  // CRC RevEng catalogue, CRC-16/MODBUS: check 0x4B37 over "123456789".
  assert.equal(crc16(Buffer.from("123456789")), 0x4b37);
  assert.ok(hasValidCrc(hex("01 03 00 00 00 0A C5 CD")));
  assert.ok(!hasValidCrc(hex("01 03 00 00 00 0A C5 CC")));
  assert.deepEqual(encodeReadRequest({ unit: 1, functionCode: 3, address: 0, count: 10 }), hex("010300 00000AC5CD"));
});

test("a frame is found when it comes byte by byte, in any two pieces, and in one", () => {
  const expected = Buffer.from(answer).toString("hex");
  for (let cut = 0; cut <= answer.length; cut++) {
    assert.deepEqual(parse(answer, [cut]), { frames: [expected], rejected: 0 });
  }
  assert.deepEqual(parse(answer, Array(answer.length).fill(1)), { frames: [expected], rejected: 0 });
});

test("frames that follow one another without a pause stay apart", () => {
  const exception = encodeRtuFrame(9, hex("84 02"));
  assert.equal(parse(joined(answer, exception, answer)).frames.length, 3);
});

test("after garbage, half a frame or a spoilt frame the next one is found and every lost byte is counted", () => {
  const spoilt = answer.slice();
  spoilt[4]! ^= 1;
  for (const garbage of [
    hex("00 FF 00"),
    answer.subarray(0, 6),
    spoilt,
    hex("01 04 04"),
    hex("01 84"),
    hex("01 2B 0E"),
  ]) {
    const parser = new RtuParser(answerLength);
    const frames = [...parser.push(joined(garbage, answer)), ...parser.rescan()];
    assert.deepEqual(frames.at(-1), answer, Buffer.from(garbage).toString("hex"));
    assert.equal(frames.length, 1);
    assert.equal(parser.rejectedBytes, garbage.length);
  }
});

test("a rescan on silence does no harm to a frame that is only slow", () => {
  const parser = new RtuParser(answerLength);
  for (const byte of answer.subarray(0, -1)) {
    assert.deepEqual(parser.push(Uint8Array.of(byte)), []);
    assert.deepEqual(parser.rescan(), []);
  }
  assert.deepEqual(parser.push(answer.subarray(-1)), [answer]);
  assert.equal(parser.rejectedBytes, 0);
});

test("any mixture of noise and frames, in any pieces: every frame whose head the noise does not swallow comes out whole", () => {
  let state = 12345;
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  for (let round = 0; round < 300; round++) {
    const sent: string[] = [];
    const parts: Uint8Array[] = [];
    for (let i = 0; i < 5; i++) {
      // Noise with which no frame begins, so that the count is exact.
      parts.push(Uint8Array.from({ length: random(6) }, () => 248 + random(8)));
      const data = Uint8Array.from({ length: 2 * (1 + random(60)) }, () => random(256));
      const frame = encodeRtuFrame(1 + random(247), joined(Uint8Array.of(4, data.length), data));
      parts.push(frame);
      sent.push(Buffer.from(frame).toString("hex"));
    }
    const bytes = joined(...parts);
    const pieces = Array.from({ length: 30 }, () => random(20));
    const noise = bytes.length - sent.join("").length / 2;
    assert.deepEqual(parse(bytes, pieces), { frames: sent, rejected: noise });
  }
});

test("expected lengths: answers by their request, requests by their function", () => {
  assert.equal(replyLengthOf(encodeReadRequest({ unit: 1, functionCode: 4, address: 0, count: 12 })), 29);
  assert.equal(replyLengthOf(encodeReadRequest({ unit: 1, functionCode: 1, address: 0, count: 9 })), 7);
  assert.equal(replyLengthOf(encodeRtuFrame(1, hex("11"))), undefined);
  const write = encodeRtuFrame(1, hex("10 00 00 00 02 04 11 22 33 44"));
  assert.equal(requestLength(write, 0, write.length), write.length);
});

test("a device identification is delimited by its objects", () => {
  const identification = encodeRtuFrame(1, hex("2B 0E 01 01 00 00 02 00 03 41 42 43 01 02 44 45"));
  assert.deepEqual(parse(identification, [9, 3]).frames, [Buffer.from(identification).toString("hex")]);
});
