// The faults of a simulated slave, byte by byte, and several slaves on one line.
import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeReadRequest, encodeRtuFrame, hasValidCrc } from "../../drivers/modbus/rtu-frame.ts";
import { imageDevice } from "../../simulator/meter-device.ts";
import { RegisterImage } from "../../simulator/register-image.ts";
import { answerOnLine, RtuSlaveLine } from "../../simulator/rtu-slave-line.ts";
import { SimulatedSlave, seededRandom } from "../../simulator/simulated-slave.ts";
import { parseFault, type SlaveFault } from "../../simulator/slave-fault.ts";

const limits = { maxRegistersPerRequest: 20, countStep: 1 };

function slaveAt(unit: number, word = 0x1234, random?: () => number): SimulatedSlave {
  const image = new RegisterImage();
  image.cover(3, 0, 10);
  image.setWord(3, 1, word);
  return new SimulatedSlave(imageDevice(limits, unit, image), random);
}

const request = (unit: number): Uint8Array => encodeReadRequest({ unit, functionCode: 3, address: 0, count: 2 });
const good = Uint8Array.of(5, 3, 4, 0, 0, 0x12, 0x34);
const whole = encodeRtuFrame(5, good.subarray(1));

/** What comes for a request while the slave has a fault. */
function bytesWith(fault: SlaveFault, silenceMs?: number) {
  const slave = slaveAt(5);
  slave.setFault(fault);
  return answerOnLine([slave], request(5), silenceMs);
}

test("each fault spoils the answer in its own way", () => {
  const only = (fault: SlaveFault): Uint8Array => {
    const [piece, ...others] = bytesWith(fault);
    assert.equal(others.length, 0);
    return piece!.bytes;
  };
  assert.deepEqual(bytesWith({ kind: "silent" }), []);
  assert.deepEqual(only({ kind: "wrong unit" }), encodeRtuFrame(6, good.subarray(1)));
  assert.deepEqual(only({ kind: "wrong function" }), encodeRtuFrame(5, Uint8Array.of(4, 4, 0, 0, 0x12, 0x34)));
  assert.deepEqual(only({ kind: "exception", code: 6 }), encodeRtuFrame(5, Uint8Array.of(0x83, 6)));
  assert.equal(hasValidCrc(only({ kind: "bad crc" })), false);
  assert.equal(hasValidCrc(only({ kind: "garbled" })), false);
  assert.deepEqual(only({ kind: "cut" }), whole.subarray(0, 5));
  assert.deepEqual(only({ kind: "noise before" }).subarray(-whole.length), whole);
  assert.equal(hasValidCrc(only({ kind: "garbage" })), false);
});

test("late, slow, doubled: the right bytes at another time, or twice", () => {
  assert.deepEqual(bytesWith({ kind: "late", byMs: 70 }), [{ afterMs: 70, bytes: whole }]);
  const slow = bytesWith({ kind: "slow", pauseMs: 30 });
  assert.deepEqual(
    slow.map(({ afterMs }) => afterMs),
    [0, 30, 30],
  );
  assert.deepEqual(
    slow.flatMap(({ bytes }) => [...bytes]),
    [...whole],
  );
  const [first, second] = bytesWith({ kind: "duplicate" });
  assert.deepEqual([first!.bytes, second!.bytes], [whole, whole]);
});

test("a slave that needs a gap answers after one, and not before", () => {
  assert.deepEqual(bytesWith({ kind: "needs gap", gapMs: 50 }, 49), []);
  assert.deepEqual(bytesWith({ kind: "needs gap", gapMs: 50 }, 50), [{ afterMs: 0, bytes: whole }]);
});

test("a fault for so many answers, or for a share of them, ends or spares as it says", () => {
  const slave = slaveAt(5, 0x1234, seededRandom(7));
  slave.setFault({ kind: "silent" }, 2);
  const answers = (count: number): number =>
    Array.from({ length: count }, () => answerOnLine([slave], request(5))).filter((pieces) => pieces.length > 0).length;
  assert.equal(answers(5), 3);
  slave.setFault({ kind: "silent" }, Number.POSITIVE_INFINITY, 0.25);
  const answered = answers(1000);
  assert.ok(answered > 700 && answered < 800, `${answered} of 1000`);
  slave.setFault(undefined);
  assert.equal(answers(3), 3);
});

test("two slaves of one unit spoil each other's answers; one of them alone is understood", () => {
  const [one, other] = [slaveAt(5, 0x1234), slaveAt(5, 0x4321)];
  const [collision] = answerOnLine([one, other], request(5));
  assert.equal(hasValidCrc(collision!.bytes), false);
  other.setFault({ kind: "silent" });
  assert.deepEqual(answerOnLine([one, other], request(5)), [{ afterMs: 0, bytes: whole }]);
});

test("several units on a line: each answers its own requests, and one that is late holds nobody up", async () => {
  const slaves = [slaveAt(1, 1), slaveAt(2, 2), slaveAt(3, 3)];
  slaves[0]!.setFault({ kind: "late", byMs: 150 }, 1);
  const sent: number[] = [];
  await new Promise<void>((resolve) => {
    const line = new RtuSlaveLine({
      slaves,
      baud: 115_200,
      write: (bytes) => {
        sent.push(bytes[0]!);
        if (sent.length === 3) resolve();
      },
    });
    line.receive(request(1));
    line.receive(request(2));
    line.receive(request(9));
    line.receive(request(3));
  });
  assert.deepEqual(sent.toSorted(), [1, 2, 3]);
  assert.equal(sent[2], 1, "the late one is the last");
});

test("faults as they are written on a command line", () => {
  assert.deepEqual(parseFault("late:800"), { fault: { kind: "late", byMs: 800 } });
  assert.deepEqual(parseFault("exception:6*3"), { fault: { kind: "exception", code: 6 }, times: 3 });
  assert.deepEqual(parseFault("bad-crc%20"), { fault: { kind: "bad crc" }, share: 0.2 });
  assert.deepEqual(parseFault("foreign"), { fault: { kind: "wrong unit" } });
  for (const text of ["", "late", "late:", "late:70000", "cut:3", "bad-crc%0", "bad-crc%101", "lost*0", "lost*-1", "x"])
    assert.equal(parseFault(text), undefined, text);
});

test("numbers of every type and word order stand as the words that a meter would send", () => {
  const image = new RegisterImage();
  const at = (address: number) => ({ functionCode: 3, address }) as const;
  image.setValue({ ...at(0), type: "int32", wordOrder: "low-first" }, -2);
  image.setValue({ ...at(2), type: "uint16", wordOrder: "high-first" }, 70_000);
  image.setValue({ ...at(3), type: "float32", wordOrder: "low-first" }, 1);
  image.setRaw({ ...at(5), type: "uint64", wordOrder: "high-first" }, 0x0102_0304_0506_0708n);
  image.setRaw({ ...at(9), type: "int64", wordOrder: "low-first" }, -1n - 0xffffn);
  image.setText({ ...at(13), type: "ascii", count: 2 }, "AB1");
  image.setText({ ...at(15), type: "ascii-low", count: 2 }, "AB1");
  const words = image.read(3, 0, 17);
  assert.deepEqual(
    [...words!],
    [
      ...[0xfffe, 0xffff, 0xffff, 0, 0x3f80],
      ...[0x0102, 0x0304, 0x0506, 0x0708],
      ...[0, 0xffff, 0xffff, 0xffff],
      ...[0x4142, 0x3120, 0x41, 0x42],
    ],
  );
  assert.equal(image.read(3, 0, 18), undefined);
});
