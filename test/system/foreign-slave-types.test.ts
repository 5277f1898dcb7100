// Slaves that we did not write, libmodbus and pymodbus: every type and word order, exceptions, wrong transaction ids.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import type { ModbusLine } from "../../drivers/modbus/line.ts";
import { type NumberType, registersOf, type WordOrder } from "../../drivers/modbus/profile.ts";
import { numberOfRaw, rawOfWords } from "../../drivers/modbus/register-value.ts";
import { createRtuLine } from "../../drivers/modbus/rtu-line.ts";
import { createRtuTcpLine, createTcpLine } from "../../drivers/modbus/tcp-line.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { eventually } from "./running-program-fixture.ts";
import { freePort, Scene } from "./scene-fixture.ts";

const python = "/usr/bin/python3"; // Debian's own, which sees Debian's packages
const runsInPython = (program: string): boolean => spawnSync(python, ["-c", program]).status === 0;
const pymodbusMissing = runsInPython("import pymodbus") ? false : "no pymodbus: apt-get install python3-pymodbus";
const libmodbusMissing = runsInPython("import ctypes; ctypes.CDLL('libmodbus.so.5')")
  ? false
  : "no libmodbus: apt-get install libmodbus5";
const socatMissing = existsSync("/usr/bin/socat") ? false : "no /usr/bin/socat: apt-get install socat";

const unit = 7;
const host = "127.0.0.1";

/** Each number as it stands in two's complement or IEEE 754, high byte first. */
const numbers: readonly [NumberType, number | bigint, hex: string][] = [
  ["int16", -2n, "FFFE"],
  ["uint16", 0xfffen, "FFFE"],
  ["int32", -123_456_789n, "F8A432EB"],
  ["uint32", 4_171_510_507n, "F8A432EB"],
  ["int64", -81_985_529_216_486_896n, "FEDCBA9876543210"],
  ["uint64", 18_364_758_544_493_064_720n, "FEDCBA9876543210"],
  ["float32", -0.15625, "BE200000"],
  ["float64", 16_777_217.0625, "4170000011000000"],
];
const orders: readonly WordOrder[] = ["high-first", "low-first"];

/** All of them in both orders, one after the other from address 0 on. */
const words: readonly number[] = numbers.flatMap(([, , hex]) =>
  orders.flatMap((order) => {
    const inOrder = hex.match(/.{4}/g)!.map((word) => Number.parseInt(word, 16));
    return order === "high-first" ? inOrder : inOrder.toReversed();
  }),
);

type Slave = "libmodbus" | "pymodbus";
type Way = "tcp" | "rtu over tcp" | "pty";

async function lineTo(t: TestContext, slave: Slave, way: Way): Promise<ModbusLine> {
  const scene = new Scene(t);
  const line = await (slave === "libmodbus" ? lineToLibmodbus(scene, way) : lineToPymodbus(scene, way));
  t.after(() => line.close());
  return line;
}

async function lineToPymodbus(scene: Scene, way: Way): Promise<ModbusLine> {
  const port = await freePort();
  const program = path.join(import.meta.dirname, "pymodbus-slave.py");
  const framer = way === "tcp" ? "socket" : "rtu";
  await scene.startCommand(python, [program, framer, `${port}`, `${unit}`, JSON.stringify(words)]).line(/^listening$/);
  if (way === "tcp") return createTcpLine({ host, port });
  if (way === "rtu over tcp") return createRtuTcpLine({ host, port });
  const link = scene.path("pymodbus.tty");
  scene.startCommand("/usr/bin/socat", [`pty,raw,echo=0,link=${link}`, `tcp:${host}:${port}`]);
  await eventually("socat has made the pty", () => existsSync(link));
  return ptyLine(link);
}

async function lineToLibmodbus(scene: Scene, way: Way): Promise<ModbusLine> {
  const program = path.join(import.meta.dirname, "libmodbus-slave.py");
  const port = await freePort();
  const [near, far] = [scene.path("near.tty"), scene.path("far.tty")];
  if (way === "pty") {
    scene.startCommand("/usr/bin/socat", [`pty,raw,echo=0,link=${near}`, `pty,raw,echo=0,link=${far}`]);
    await eventually("socat has made the ptys", () => existsSync(near) && existsSync(far));
  }
  const where = way === "pty" ? ["rtu", far] : ["tcp", `${port}`];
  await scene.startCommand(python, [program, ...where, `${unit}`, JSON.stringify(words)]).line(/^listening$/);
  return way === "pty" ? ptyLine(near) : createTcpLine({ host, port });
}

function ptyLine(link: string): ModbusLine {
  const openTransport = () => openSerialPort({ path: link, baud: 9600 });
  return createRtuLine({ description: link, openTransport, baud: 9600, bitsPerCharacter: 10 });
}

const cases: readonly [Slave, Way, missing: string | false][] = [
  ["libmodbus", "tcp", libmodbusMissing],
  ["libmodbus", "pty", libmodbusMissing || socatMissing],
  ["pymodbus", "tcp", pymodbusMissing],
  ["pymodbus", "rtu over tcp", pymodbusMissing],
  ["pymodbus", "pty", pymodbusMissing || socatMissing],
];
for (const [slave, way, missing] of cases) {
  if (missing) console.log(`skipped: ${missing}`);
  const read = { unit, timeoutMs: 500, slowestAnswerMs: 1000 } as const;

  test(`${slave}, ${way}: every type in both word orders, by functions 3 and 4`, { skip: missing }, async (t) => {
    const line = await lineTo(t, slave, way);
    let address = 0;
    for (const [type, expected] of numbers) {
      const count = registersOf(type);
      for (const wordOrder of orders) {
        for (const functionCode of [3, 4] as const) {
          const ask = () => line.readRegisters({ ...read, functionCode, address, count });
          // libmodbus gives every fifth answer another transaction's id.
          const got = await ask().catch(ask);
          assert.equal(numberOfRaw(type, rawOfWords({ type, wordOrder }, got)), expected, `${type} ${wordOrder}`);
        }
        address += count;
      }
    }
    const { late = 0, timeouts = 0 } = line.counters.get(unit) ?? {};
    const isWithWrongIds = slave === "libmodbus" && way === "tcp";
    assert.equal(timeouts > 0 && late > 0, isWithWrongIds, "answers with another id are rejected, and only these");
  });

  test(`${slave}, ${way}: registers that are not there are refused with exception 2`, { skip: missing }, async (t) => {
    const line = await lineTo(t, slave, way);
    const beyond = { ...read, functionCode: 4, address: words.length + 10, count: 2 } as const;
    await assert.rejects(line.readRegisters(beyond), { code: "modbus-exception", exceptionCode: 2, retryable: false });
    const good = await line.readRegisters({ ...beyond, address: 0 });
    assert.deepEqual([...good], words.slice(0, 2));
  });
}
