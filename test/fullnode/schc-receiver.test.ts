import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { crc32 } from "node:zlib";
import { type ReceiverAction, SchcReceiver } from "../../fullnode/schc-receiver.ts";
import { encodeFragment } from "../../protocol/schc.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";
import { longPacket, shortPacket } from "../vectors/schc-vectors.ts";
import { bytesOf, hexOf } from "../vectors/signature-suite.ts";

const devAddr = "26010203";
const hours = 3_600_000;

/** A full node that stores nothing yet: what a receiver says, in hex; packets as "packet" and their bytes. */
class Node {
  receiver: SchcReceiver = new SchcReceiver();
  fCnt = 0;
  nowMs = 0;
  readonly packets: string[] = [];

  receive(fragment: Uint8Array | string, fCnt = this.fCnt++, session = devAddr): string[] {
    const bytes = typeof fragment === "string" ? bytesOf(fragment) : fragment;
    return this.say(this.receiver.receive(bytes, fCnt, this.nowMs, session));
  }

  say(actions: readonly ReceiverAction[]): string[] {
    return actions.map((action) => {
      if (action.kind === "answer") return hexOf(action.bytes);
      this.packets.push(hexOf(action.packet));
      return "packet";
    });
  }

  restart(): void {
    this.receiver = SchcReceiver.restore(structuredClone(this.receiver.state(this.nowMs)), this.nowMs);
  }
}

const head = (text: string, from: number, to: number, packet = shortPacket): string =>
  text + hexOf(packet.subarray(from, to));
const three = [head("3e", 0, 50), head("39", 50, 100), head("34", 100, 150)] as const;
const allOne = head("3f78f38800", 150, 156);

test("a packet in order, out of order, doubled: handed over once whole, complete once stored", () => {
  for (const order of [
    [0, 1, 2],
    [2, 0, 1],
    [0, 0, 1, 2, 1],
  ]) {
    const node = new Node();
    for (const i of order) assert.deepEqual(node.receive(three[i] as string), []);
    assert.deepEqual(node.receive(allOne), ["packet"]);
    assert.deepEqual(node.say(node.receiver.stored(0)), ["20"]);
    assert.deepEqual(node.receive(allOne), ["20"], "its ACK was lost");
    assert.deepEqual(node.receive("00"), ["20"]);
    assert.deepEqual(node.receive(three[1]), [], "a tile of the packet that is stored");
    assert.deepEqual(node.packets, [hexOf(shortPacket)]);
  }
});

test("no answer says complete before the record path has", () => {
  const node = new Node();
  for (const fragment of three) node.receive(fragment);
  assert.deepEqual(node.receive(allOne), ["packet"]);
  assert.deepEqual(node.receive(allOne), ["packet"], "again: the record path may have lost it");
  assert.deepEqual(node.receive("00"), ["packet"]);
  assert.deepEqual(node.say(node.receiver.stored(0, longPacket)), [], "another packet was stored");
  assert.deepEqual(node.say(node.receiver.stored(0, shortPacket)), ["20"]);
  assert.deepEqual(node.say(node.receiver.stored(0, shortPacket)), [], "said once");
});

test("a packet of which no record can come is answered by a Receiver-Abort, as often as it comes", () => {
  const node = new Node();
  for (const fragment of [...three, allOne]) node.receive(fragment);
  assert.deepEqual(node.say(node.receiver.refused(0)), ["ffff"]);
  assert.deepEqual(node.receive(allOne), ["ffff"]);
});

test("what is missing is named, and the packet is handed over with the tile that completes it", () => {
  const node = new Node();
  assert.deepEqual(node.receive("00"), ["000000000000000000"]);
  assert.deepEqual(node.receive(allOne), ["000000000000000040"]);
  node.receive(three[0]);
  node.receive(three[2]);
  assert.deepEqual(node.receive(allOne), ["1f07c0000000000040"]);
  assert.deepEqual(node.receive(three[1]), ["packet"]);
});

test("windows are named from the lowest one on", () => {
  const node = new Node();
  const crc = crc32(longPacket);
  const regular = (first: number, count: number) =>
    encodeFragment({
      kind: "regular",
      window: Math.floor(first / 63),
      fcn: 62 - (first % 63),
      tiles: longPacket.subarray(first * 10, (first + count) * 10),
    });
  const end = encodeFragment({ kind: "all-1", window: 1, rcs: crc, tile: longPacket.subarray(990) });
  node.receive(regular(0, 22));
  node.receive(regular(44, 22));
  assert.equal(node.receive(end)[0]?.slice(0, 2), "1f", "window 0, though window 1 has gaps too");
  node.receive(regular(22, 22));
  assert.equal(node.receive(end)[0]?.slice(0, 2), "5c", "window 1: tiles 63 to 65 are there");
  node.receive(regular(66, 22));
  assert.deepEqual(node.receive(regular(88, 11)), ["packet"]);
  assert.deepEqual(node.say(node.receiver.stored(0)), ["60"]);
  assert.deepEqual(node.packets, [hexOf(longPacket)]);
});

test("the last tile is taken in a regular fragment too, as in RFC 9011 appendix A.2", () => {
  for (const [from, order] of [
    [150, [0, 1]],
    [140, [1, 0]],
  ] as const) {
    const node = new Node();
    for (const fragment of three) node.receive(fragment);
    const last = head((0x3e - from / 10).toString(16), from, 156);
    const results = order.map((i) => node.receive([last, "3f78f38800"][i] as string).join());
    assert.ok(results.includes("packet"), results.join(" "));
    assert.deepEqual(node.packets, [hexOf(shortPacket)]);
  }
});

test("a new packet on the port takes the place of one that was stored or given up; frames of the old one change nothing", () => {
  const next = shortPacket.map((byte) => byte ^ 0x55);
  const nextThree = [head("3e", 0, 50, next), head("39", 50, 100, next), head("34", 100, 150, next)] as const;
  const nextAllOne = `3f${crc32(next).toString(16).padStart(8, "0")}${hexOf(next.subarray(150))}`;
  const stored = new Node();
  for (const fragment of [...three, allOne]) stored.receive(fragment);
  stored.receiver.stored(0);
  stored.receive(nextThree[0]);
  assert.deepEqual(stored.receive(allOne, 3), [], "the old All-1 once more");
  stored.receive(three[1], 1);
  stored.receive(nextThree[1]);
  stored.receive(nextThree[2]);
  assert.deepEqual(stored.receive(nextAllOne), ["packet"]);
  assert.equal(stored.packets[1], hexOf(next));

  const givenUp = new Node();
  givenUp.receive(three[1]);
  givenUp.receive(three[2]);
  for (const fragment of nextThree) givenUp.receive(fragment);
  const answered = givenUp.receive(nextAllOne);
  assert.equal(answered[0]?.slice(0, 2), "00", "its first frame went with the old tiles");
  assert.deepEqual(givenUp.receive(nextThree[0]), ["packet"]);
  assert.deepEqual(givenUp.packets, [hexOf(next)]);
});

test("tiles of an earlier packet that stand behind a shorter one do not spoil it", () => {
  const node = new Node();
  node.receive(three[1]);
  const next = longPacket.subarray(0, 56);
  node.receive(head("3e", 0, 50, next));
  assert.deepEqual(node.receive(`3f${crc32(next).toString(16).padStart(8, "0")}${hexOf(next.subarray(50))}`), [
    "packet",
  ]);
  assert.deepEqual(node.packets, [hexOf(next)]);
});

test("after a join the frame counter begins anew; without one, lower counters are of old packets", () => {
  const node = new Node();
  node.fCnt = 1000;
  for (const fragment of [...three, allOne]) node.receive(fragment);
  node.receiver.stored(0);
  node.receive("ff");
  assert.deepEqual(node.receive(allOne, 7), []);
  assert.deepEqual(node.receive(allOne, 8, "26010204"), ["000000000000000040"]);
});

test("a Sender-Abort forgets the packet", () => {
  const node = new Node();
  node.receive(three[0]);
  node.receive("ff");
  assert.ok(node.receiver.isIdle);
  assert.deepEqual(node.receive(allOne), ["000000000000000040"]);
});

test("answers in vain end in a Receiver-Abort; new tiles begin the count anew", () => {
  const node = new Node();
  for (let i = 0; i < 8; i++) assert.deepEqual(node.receive(allOne), ["000000000000000040"]);
  node.receive(three[0]);
  for (let i = 0; i < 8; i++) assert.notDeepEqual(node.receive(allOne), ["ffff"]);
  assert.deepEqual(node.receive(allOne), ["ffff"]);
  assert.ok(node.receiver.isIdle);
});

test("after twelve hours of silence what is incomplete is given up, and what was stored forgotten", () => {
  const node = new Node();
  node.receive(three[0]);
  node.nowMs = 11 * hours;
  node.receive(three[1]);
  node.nowMs = 22 * hours;
  node.restart();
  assert.deepEqual(node.receiver.expire(node.nowMs), []);
  assert.equal(node.receiver.deadlineMs, 23 * hours);
  node.nowMs = 23 * hours;
  assert.deepEqual(node.say(node.receiver.expire(node.nowMs)), ["ffff"]);
  assert.ok(node.receiver.isIdle);
  for (const fragment of [...three, allOne]) node.receive(fragment);
  node.receiver.stored(node.nowMs);
  node.nowMs += 12 * hours;
  assert.deepEqual(node.receiver.expire(node.nowMs), []);
  assert.ok(node.receiver.isIdle);
});

test("a restart at every step changes nothing", () => {
  const node = new Node();
  for (const fragment of [three[0], three[2], allOne]) {
    node.receive(fragment);
    node.restart();
  }
  assert.deepEqual(node.receive(three[1]), ["packet"]);
  node.restart();
  assert.deepEqual(node.receive(allOne), ["packet"], "the record path heard nothing of it before the restart");
  assert.deepEqual(node.say(node.receiver.stored(0)), ["20"]);
  node.restart();
  assert.deepEqual(node.receive(allOne), ["20"]);
});

test("whatever the bytes, nothing is thrown, and no more is held than one packet", () => {
  const random = randomOfRun();
  console.log(`seed ${random.seed} (ECP_TEST_SEED=${random.seed} repeats this run)`);
  const node = new Node();
  let tilesMost = 0;
  let answers = 0;
  for (let i = 0; i < 20_000; i++) {
    const bytes = random.bytes(random.pick([1, 2, 5, 11, 15, random.integer(0, 242)]));
    if (bytes[0] !== undefined && random.chance(30)) bytes[0] |= 0x3f;
    if (random.chance(2)) node.restart();
    answers += node.receive(bytes, random.chance(80) ? i : random.uint32()).length;
    const { tiles, packet } = node.receiver.state(0);
    tilesMost = Math.max(tilesMost, tiles.length + (packet?.length ?? 0) / 10);
    if (random.chance(1)) node.receive("ff", 2 ** 32 - 1, `${i}`);
  }
  console.log(`20,000 frames: ${answers} answers, at most ${tilesMost} tiles held`);
  assert.ok(answers > 100 && tilesMost > 20 && tilesMost <= 252);
});

test("in frames of one tile, a packet that begins like the one before on its port loses nothing of its beginning", () => {
  const packets = [1, 2, 3].map((n) => shortPacket.map((byte, i) => (i < 20 || i === 155 ? byte : byte ^ n)));
  const framesOf = (packet: Uint8Array) => [
    ...Array.from({ length: 15 }, (_, i) =>
      encodeFragment({ kind: "regular", window: 0, fcn: 62 - i, tiles: packet.subarray(i * 10, i * 10 + 10) }),
    ),
    encodeFragment({ kind: "all-1", window: 0, rcs: crc32(packet), tile: packet.subarray(150) }),
  ];
  const node = new Node();
  for (const [i, packet] of packets.entries()) {
    const said = framesOf(packet).flatMap((frame) => node.receive(frame));
    assert.deepEqual(said, ["packet"], `packet ${i}`);
    assert.equal(node.packets.at(-1), hexOf(packet));
    if (i === 1) node.restart();
    assert.deepEqual(node.say(node.receiver.stored(0)), ["20"]);
    // The first one is sent anew, as its answer was lost: no tile of it stays for the second one.
    if (i === 0)
      assert.deepEqual(
        framesOf(packet).flatMap((frame) => node.receive(frame)),
        ["20"],
      );
  }
});

test("a thousand packets of the longest size, one tile short, take a few kilobytes each", () => {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  const tiles = Array.from({ length: 251 }, (_, tile) => new Uint8Array(10).fill(tile));
  const bytesFor = (hold: () => unknown): number => {
    collect();
    const before = process.memoryUsage();
    const held = Array.from({ length: 1_000 }, hold);
    collect();
    const after = process.memoryUsage();
    return (after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers) / held.length;
  };
  const bytes = bytesFor(() => {
    const receiver = new SchcReceiver();
    for (const [tile, one] of tiles.entries()) {
      const place = { window: Math.floor(tile / 63), fcn: 62 - (tile % 63) };
      receiver.receive(encodeFragment({ kind: "regular", ...place, tiles: one }), tile, 0, devAddr);
    }
    return receiver;
  });
  const control = bytesFor(() => new Map(tiles.map((one, tile) => [tile, one.slice()])));
  console.log(`${Math.round(bytes)} bytes a packet; control, an object for each tile: ${Math.round(control)}`);
  assert.ok(bytes < 10_000 && control > 20_000);
});
