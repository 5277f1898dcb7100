import assert from "node:assert/strict";
import { test } from "node:test";
import { SchcSender, type SenderFrame } from "../../agent/schc-sender.ts";
import { encodeAnswer, type SchcAnswer } from "../../protocol/schc.ts";
import { longPacket, shortPacket } from "../vectors/schc-vectors.ts";
import { bytesOf, hexOf } from "../vectors/signature-suite.ts";

const none: readonly number[] = [];

/** Hands over the frame that is due and says that it is out. */
function send(sender: SchcSender, bytesMax: number, nowMs = 0): SenderFrame {
  const frame = sender.next(bytesMax, nowMs);
  assert.ok(frame !== undefined && frame !== "no-room", `${frame}`);
  assert.ok(frame.bytes.length <= bytesMax);
  sender.sent(frame, nowMs);
  return frame;
}

function sendAll(sender: SchcSender, bytesMax: number, nowMs = 0): string[] {
  const heads: string[] = [];
  for (let frame = sender.next(bytesMax, nowMs); frame; frame = sender.next(bytesMax, nowMs)) {
    assert.ok(frame !== "no-room");
    sender.sent(frame, nowMs);
    heads.push(hexOf(frame.bytes.subarray(0, 1)));
  }
  return heads;
}

/** An ACK that lacks these tiles, numbered from the packet's start. */
function missing(window: number, tiles: readonly number[], allOne = true): Uint8Array {
  const bitmap = Array.from({ length: 63 }, (_, i) => !tiles.includes(window * 63 + i));
  if (!allOne) bitmap[62] = false;
  return encodeAnswer({ kind: "ack", window, complete: false, bitmap });
}

const answer = (given: SchcAnswer): Uint8Array => encodeAnswer(given);
const complete = (window: number): Uint8Array => answer({ kind: "ack", window, complete: true });

test("the packet of 156 bytes goes in the frames of the vectors, with one data rate or several", () => {
  const steady = SchcSender.begin(20, shortPacket);
  assert.deepEqual(sendAll(steady, 51), ["3e", "39", "34", "3f"]);
  assert.equal(steady.next(51, 0), undefined);
  const changing = SchcSender.begin(24, shortPacket);
  const frames = [51, 11, 51, 51, 51].map((bytesMax) => hexOf(send(changing, bytesMax).bytes));
  assert.deepEqual(
    frames.map((hex) => [hex.slice(0, 2), hex.length / 2]),
    [
      ["3e", 51],
      ["39", 11],
      ["38", 51],
      ["33", 41],
      ["3f", 11],
    ],
  );
  assert.equal(frames[4], `3f78f38800${hexOf(shortPacket.subarray(150))}`);
  assert.deepEqual(sendAll(SchcSender.begin(20, longPacket), 222), ["3e", "28", "12", "7b", "65", "7f"]);
});

test("RFC 9011 appendix A.2: 2 bytes of MAC commands at 11 bytes leave no room, then 23 tiles and the rest go", () => {
  const sender = SchcSender.begin(20, new Uint8Array(283).fill(7));
  assert.equal(hexOf(send(sender, 11).bytes.subarray(0, 1)), "3e");
  assert.equal(sender.next(9, 0), "no-room");
  assert.equal(sender.next(0, 0), "no-room");
  const many = send(sender, 242 - 4);
  assert.equal(hexOf(many.bytes.subarray(0, 1)), "3d");
  assert.equal(many.bytes.length, 231);
  // The last of 29 tiles goes in the All-1 here, in a regular fragment there.
  assert.deepEqual(sendAll(sender, 242), ["26", "3f"]);
  assert.ok(sender.received(bytesOf("20"), 0));
  assert.equal(sender.outcome, "acknowledged");
});

test("RFC 8724 appendix B, with windows of 63: what the answers name is sent again, window after window", () => {
  const sender = SchcSender.begin(20, new Uint8Array(10 * 70).fill(1));
  sendAll(sender, 11);
  assert.ok(sender.received(missing(0, [2, 4]), 0));
  assert.deepEqual(sendAll(sender, 11), ["3c", "3a", "40"], "tiles 2 and 4 of window 0, then ACK REQ");
  assert.ok(sender.received(missing(1, [65]), 0));
  assert.deepEqual(sendAll(sender, 11), ["7c", "40"]);
  assert.ok(sender.received(complete(1), 0));
  assert.equal(sender.outcome, "acknowledged");
  assert.equal(sender.wakesAtMs(0), undefined);
});

test("an answer that comes before the modem reports the frame as sent counts", () => {
  const sender = SchcSender.begin(20, Uint8Array.of(1, 2, 3));
  const frame = sender.next(51, 0) as SenderFrame;
  assert.equal(frame.kind, "all-1");
  assert.ok(sender.received(complete(0), 5));
  assert.equal(sender.outcome, "acknowledged");
  sender.sent(frame, 6);
  assert.equal(sender.outcome, "acknowledged");
});

test("what is no answer to this session changes nothing", () => {
  const sender = SchcSender.begin(20, shortPacket);
  assert.equal(sender.received(complete(0), 0), false, "before any frame");
  assert.equal(sender.received(bytesOf("ffff"), 0), false, "a Receiver-Abort before any frame");
  send(sender, 51);
  assert.equal(sender.received(complete(0), 0), false, "before the All-1");
  assert.equal(sender.received(missing(0, [1]), 0), false);
  sendAll(sender, 51);
  assert.equal(sender.received(complete(1), 0), false, "of a window that the packet has not");
  assert.equal(sender.received(bytesOf("3f"), 0), false, "malformed");
  assert.equal(sender.outcome, undefined);
  assert.equal(sender.next(51, 0), undefined);
});

test("a late answer is asked for again, in the end the session is given up", () => {
  const sender = SchcSender.begin(20, shortPacket, { retryDelaysMs: [30, 300] });
  sendAll(sender, 51, 0);
  assert.equal(sender.wakesAtMs(0), 30);
  assert.equal(sender.next(51, 29), undefined);
  assert.deepEqual(sendAll(sender, 51, 30), ["3f"]);
  assert.equal(sender.wakesAtMs(30), 330);
  let nowMs = 330;
  for (let i = 0; i < 6; i++, nowMs += 300) assert.deepEqual(sendAll(sender, 51, nowMs), ["3f"], `request ${i + 3}`);
  assert.equal(sender.outcome, undefined);
  assert.deepEqual(sendAll(sender, 51, nowMs), ["ff"]);
  assert.equal(sender.outcome, "unacknowledged");
  assert.deepEqual([sender.next(51, nowMs), sender.received(complete(0), nowMs)], [undefined, false]);
});

test("requests in vain are counted from the last answer with news", () => {
  const sender = SchcSender.begin(20, shortPacket, { retryDelaysMs: [10] });
  let nowMs = 0;
  const wait = () => {
    nowMs += 10;
    sendAll(sender, 11, nowMs);
  };
  sendAll(sender, 11, nowMs);
  for (let round = 0; round < 4; round++) {
    for (let i = 0; i < 7; i++) wait();
    sender.received(missing(0, [...Array(15).keys()].slice(round + 1)), nowMs);
    sendAll(sender, 11, nowMs);
  }
  assert.equal(sender.outcome, undefined);
  for (let i = 0; i < 8; i++) wait();
  assert.equal(sender.outcome, "unacknowledged");
});

test("an answer that is older than the tiles just sent leads to no third sending", () => {
  const sender = SchcSender.begin(20, shortPacket, { retryDelaysMs: [10] });
  sendAll(sender, 51, 0);
  assert.ok(sender.received(missing(0, [5, 6, 7, 8, 9]), 0));
  assert.equal(hexOf(send(sender, 51).bytes.subarray(0, 1)), "39");
  assert.ok(sender.received(missing(0, [5, 6, 7, 8, 9]), 0));
  assert.deepEqual(sendAll(sender, 51, 0), ["00"], "only the request");
  assert.ok(sender.received(missing(0, [5, 6, 7, 8, 9]), 0), "now it is believed");
  assert.deepEqual(sendAll(sender, 51, 0), ["39", "00"]);
});

test("a lost All-1 is sent again as such", () => {
  const sender = SchcSender.begin(20, shortPacket, { retryDelaysMs: [10] });
  sendAll(sender, 51, 0);
  assert.ok(sender.received(missing(0, none, false), 0));
  assert.deepEqual(sendAll(sender, 51, 0), ["3f"]);
});

test("every tile there and the packet wrong ends the session at the second answer that says so", () => {
  const sender = SchcSender.begin(20, shortPacket);
  sendAll(sender, 51);
  assert.ok(sender.received(missing(0, none), 0));
  assert.deepEqual(sendAll(sender, 51), ["00"]);
  assert.ok(sender.received(missing(0, none), 0));
  assert.deepEqual(sendAll(sender, 51), ["ff"]);
  assert.equal(sender.outcome, "rcs-mismatch");
});

test("a Receiver-Abort ends the session", () => {
  const sender = SchcSender.begin(20, shortPacket);
  sendAll(sender, 51);
  assert.ok(sender.received(bytesOf("ffff"), 0));
  assert.equal(sender.outcome, "receiver-abort");
});

test("with 11 bytes a long last tile goes in a regular fragment, and the All-1 without one", () => {
  const sender = SchcSender.begin(20, shortPacket.subarray(0, 140));
  assert.deepEqual(sendAll(sender, 11).slice(-3), ["32", "31", "3f"]);
  const rest = SchcSender.begin(20, shortPacket.subarray(0, 137));
  assert.deepEqual(sendAll(rest, 11).slice(-2), ["31", "3f"]);
});

test("where the All-1 was too long for the data rate that came since, the packet begins again", () => {
  const sender = SchcSender.begin(20, shortPacket.subarray(0, 139), { retryDelaysMs: [10] });
  assert.deepEqual(sendAll(sender, 51, 0), ["3e", "39", "34", "3f"]);
  assert.equal(sender.next(11, 5), undefined);
  const again = sendAll(sender, 11, 10);
  assert.deepEqual(again, ["ff", ...[...Array(14).keys()].map((i) => (0x3e - i).toString(16)), "3f"]);
  assert.ok(sender.received(complete(0), 10));
  assert.equal(sender.outcome, "acknowledged");
});

test("before that it asks, where answers have told that the receiver knows the packet", () => {
  const sender = SchcSender.begin(20, shortPacket.subarray(0, 139), { retryDelaysMs: [10] });
  sendAll(sender, 51, 0);
  assert.ok(sender.received(missing(0, [5], false), 0));
  assert.equal(hexOf(send(sender, 51).bytes.subarray(0, 1)), "39");
  assert.equal(hexOf((sender.next(11, 0) as SenderFrame).bytes.subarray(0, 1)), "ff", "the All-1 is lost");
  const other = SchcSender.begin(20, shortPacket.subarray(0, 139), { retryDelaysMs: [10] });
  sendAll(other, 51, 0);
  assert.ok(other.received(missing(0, [5]), 0));
  assert.deepEqual(sendAll(other, 11, 0), ["39", "00"]);
  assert.deepEqual(sendAll(other, 11, 10), ["00"]);
});

test("a last tile that shares its bit with the All-1 is sent again where all is there and yet wrong", () => {
  const sender = SchcSender.begin(20, new Uint8Array(630));
  assert.deepEqual(sendAll(sender, 11).slice(-2), ["00", "3f"]);
  for (let i = 0; i < 3; i++) {
    assert.ok(sender.received(missing(0, none), 0));
    assert.deepEqual(
      sendAll(sender, 11).map((hex) => hex.length),
      [2, 2],
    );
  }
  assert.equal(sender.outcome, undefined);
});

test("a session goes on after a restart from its state at every step", () => {
  const frames: string[] = [];
  let sender = SchcSender.begin(25, longPacket, { retryDelaysMs: [1000] });
  const restart = (nowMs: number) => {
    sender = SchcSender.restore(structuredClone(sender.state(nowMs)), nowMs + 500_000, { retryDelaysMs: [1000] });
  };
  for (let i = 0; i < 6; i++) {
    sender.next(222, 0); // a frame that was on its way when the power failed is sent again
    restart(0);
    frames.push(hexOf(send(sender, 222, 500_000).bytes.subarray(0, 1)));
  }
  assert.deepEqual(frames, ["3e", "28", "12", "7b", "65", "7f"]);
  restart(500_400);
  assert.equal(sender.wakesAtMs(1_000_400), 1_000_400 + 600);
  assert.ok(sender.received(missing(0, [62]), 1_000_500));
  restart(1_000_500);
  assert.deepEqual(sendAll(sender, 222, 1_500_500), ["00", "40"]);
  assert.ok(sender.received(complete(1), 1_500_500));
  restart(1_500_500);
  assert.equal(sender.outcome, "acknowledged");
  assert.equal(sender.port, 25);
  assert.deepEqual(sender.packet, longPacket);
});

test("a packet of no bytes, or of more than 2,520, is a programmer's error", () => {
  assert.throws(() => SchcSender.begin(20, new Uint8Array()), RangeError);
  assert.throws(() => SchcSender.begin(20, new Uint8Array(2521)), RangeError);
  const largest = SchcSender.begin(20, new Uint8Array(2520));
  assert.equal(sendAll(largest, 11).length, 251 + 2, "the last tile by itself, as it has 10 bytes");
});
