import assert from "node:assert/strict";
import { test } from "node:test";
import { FrameParser, frameHeaderBytes, frameOf } from "../../platform/framed-channel.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

const text = (messages: readonly Uint8Array[]): string[] => messages.map((message) => Buffer.from(message).toString());
const frames = (...messages: string[]): Buffer =>
  Buffer.concat(messages.map((message) => frameOf(Buffer.from(message))));

test("a frame is its length in four bytes, big-endian, and the message", () => {
  assert.equal(Buffer.from(frameOf(Buffer.from("abc"))).toString("hex"), "00000003616263");
  assert.equal(frameHeaderBytes, 4);
});

test("byte by byte, the messages come out whole and in order", () => {
  const parser = new FrameParser(100);
  const got: Uint8Array[] = [];
  for (const byte of frames("one", "", "three")) got.push(...parser.push(Uint8Array.of(byte)));
  assert.deepEqual(text(got), ["one", "", "three"]);
});

test("several messages in one piece come out at once, the rest waits", () => {
  const parser = new FrameParser(100);
  const bytes = frames("one", "two", "three");
  assert.deepEqual(text(parser.push(bytes.subarray(0, bytes.length - 1))), ["one", "two"]);
  assert.deepEqual(text(parser.push(bytes.subarray(-1))), ["three"]);
});

test("any cut of the stream gives the same messages", () => {
  const random = randomOfRun();
  const messages = Array.from({ length: 40 }, () => Buffer.from(random.bytes(random.integer(0, 300))));
  const stream = Buffer.concat(messages.map((message) => frameOf(message)));
  const parser = new FrameParser(300);
  const got: Uint8Array[] = [];
  for (let at = 0; at < stream.length; ) {
    const length = random.integer(1, 97);
    got.push(...parser.push(stream.subarray(at, at + length)));
    at += length;
  }
  assert.deepEqual(
    got.map((message) => Buffer.from(message).toString("hex")),
    messages.map((message) => message.toString("hex")),
    `seed ${random.seed}`,
  );
});

test("a message of the limit passes, one byte more is refused before it is waited for", () => {
  assert.equal(new FrameParser(10).push(frameOf(new Uint8Array(10))).length, 1);
  const header = frameOf(new Uint8Array(11)).subarray(0, frameHeaderBytes);
  assert.throws(() => new FrameParser(10).push(header), { name: "RangeError", message: /11 bytes, at most 10/ });
});

test("what comes out shares no memory with what went in", () => {
  const bytes = frames("one");
  const [message] = new FrameParser(10).push(bytes);
  bytes.fill(0);
  assert.deepEqual(text([message as Uint8Array]), ["one"]);
});
