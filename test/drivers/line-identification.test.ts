// What a unit says it is: functions 43/14 and 17 through modbus-serial, on a pty and over TCP.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import modbusSerial from "modbus-serial";
import { asLastPage } from "../../drivers/modbus/identification.ts";
import type { ModbusLine } from "../../drivers/modbus/line.ts";
import { encodeRtuFrame, hasValidCrc } from "../../drivers/modbus/rtu-frame.ts";
import { createRtuLine } from "../../drivers/modbus/rtu-line.ts";
import { createRtuTcpLine, createTcpLine } from "../../drivers/modbus/tcp-line.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { runSimulatedBus, type SimulatedBus } from "../../simulator/simulated-bus.ts";
import { SimulatedSlave } from "../../simulator/simulated-slave.ts";
import { exceptionPdu } from "../../simulator/slave-device.ts";
import { baud } from "./sdm630-line.ts";

type Answer = (pdu: Uint8Array) => Uint8Array;
const refuse: Answer = (pdu) => exceptionPdu(pdu[0]!, 1);
const request = { unit: 1, timeoutMs: 200 };

/** One answer of function 43/14 with these objects. */
function page(objects: Readonly<Record<number, string>>, moreFollows: boolean, next = 0): Uint8Array {
  const entries = Object.entries(objects).flatMap(([id, text]) => [Number(id), text.length, ...Buffer.from(text)]);
  return Uint8Array.from([43, 14, 1, 1, moreFollows ? 0xff : 0, next, Object.keys(objects).length, ...entries]);
}

async function lineTo(t: TestContext, answer: Answer, how: "pty" | "tcp" | "rtu over tcp"): Promise<ModbusLine> {
  const slaves = [new SimulatedSlave({ unit: 1, answer })];
  const tcp = { host: "127.0.0.1", port: 0, framing: how === "tcp" ? "tcp" : "rtu" } as const;
  const bus: SimulatedBus = await runSimulatedBus(how === "pty" ? { slaves, baud } : { slaves, tcp });
  const line = how === "pty" ? ptyLine(bus.path!) : tcpLine(bus.address!, how === "tcp");
  t.after(async () => {
    await line.close();
    await bus.close();
  });
  return line;
}

function ptyLine(path: string): ModbusLine {
  const openTransport = () => openSerialPort({ path, baud });
  return createRtuLine({ description: path, openTransport, baud, bitsPerCharacter: 10 });
}

function tcpLine(address: string, isMbap: boolean): ModbusLine {
  const [host = "", port = ""] = address.split(":");
  return (isMbap ? createTcpLine : createRtuTcpLine)({ host, port: Number(port) });
}

const inOnePage: Answer = (pdu) =>
  pdu[0] === 43 ? page({ 0: "Example Meters", 1: "EM-3", 2: "V1.07" }, false) : refuse(pdu);

for (const how of ["pty", "tcp", "rtu over tcp"] as const) {
  test(`vendor, product and revision by function 43: ${how}`, async (t) => {
    const line = await lineTo(t, inOnePage, how);
    assert.deepEqual(await line.identify(request), { vendor: "Example Meters", product: "EM-3", revision: "V1.07" });
  });
}

test("spread over several answers they are asked for in turn", async (t) => {
  const asked: number[] = [];
  const line = await lineTo(
    t,
    (pdu) => {
      asked.push(pdu[3]!);
      return [page({ 0: "Vendor" }, true, 1), page({ 1: "Product" }, true, 2), page({ 2: "1" }, false)][pdu[3]!]!;
    },
    "pty",
  );
  assert.deepEqual(await line.identify(request), { vendor: "Vendor", product: "Product", revision: "1" });
  assert.deepEqual(asked, [0, 1, 2]);
});

test("a device that always has more to say is asked three times at the most", async (t) => {
  let asked = 0;
  const answer: Answer = () => {
    asked++;
    return page({ 0: "Vendor" }, true, 0);
  };
  const line = await lineTo(t, answer, "pty");
  assert.deepEqual(await line.identify(request), { vendor: "Vendor" });
  assert.ok(asked <= 3, `${asked} requests`);
});

test("control: modbus-serial by itself asks it for ever", async (t) => {
  let asked = 0;
  let enough = (): void => {};
  const many = new Promise<void>((resolve) => (enough = resolve));
  const answer: Answer = () => {
    if (++asked >= 10) enough();
    return page({ 0: "Vendor" }, true, 0);
  };
  const bus = await runSimulatedBus({ slaves: [new SimulatedSlave({ unit: 1, answer })], baud });
  const client = new modbusSerial.default();
  await client.connectRTUBuffered(bus.path!, { baudRate: baud });
  t.after(async () => {
    await new Promise((resolve) => client.close(resolve));
    await bus.close();
  });
  client.setID(1);
  client.readDeviceIdentification(1, 0).catch(() => {});
  await many;
});

test("one that knows only function 17 has a text, and what is not printable is left out", async (t) => {
  const text = "Solar\u001b[2J inverter\u0000";
  const answer: Answer = (pdu) =>
    pdu[0] === 17 ? Uint8Array.from([17, text.length + 2, 7, 0xff, ...Buffer.from(text, "latin1")]) : refuse(pdu);
  const line = await lineTo(t, answer, "pty");
  assert.deepEqual(await line.identify(request), { text: "Solar [2J inverter" });
});

test("one that refuses both, and one that is silent on both, tell nothing; reading goes on", async (t) => {
  const registers: Answer = (pdu) => (pdu[0] === 4 ? Uint8Array.of(4, 2, 0x12, 0x34) : refuse(pdu));
  const line = await lineTo(t, registers, "pty");
  assert.equal(await line.identify(request), undefined);
  const read = { ...request, functionCode: 4, address: 0, count: 1 } as const;
  assert.deepEqual([...(await line.readRegisters(read))], [0x1234]);
  assert.equal(await line.identify({ ...request, unit: 9, timeoutMs: 50 }), undefined);
  assert.deepEqual([...(await line.readRegisters(read))], [0x1234]);
  assert.equal(line.reopenings, 0, "silence on an unknown function is no lost port");
});

test("a line that is closed is no unit that refuses", async (t) => {
  const line = await lineTo(t, refuse, "pty");
  await line.close();
  await assert.rejects(line.identify(request), { code: "port-closed" });
});

test("a frame that says more follows is passed on as the last one, with its CRC; others as they are", () => {
  const last = asLastPage(encodeRtuFrame(1, page({ 0: "Vendor" }, true, 1)));
  assert.ok(hasValidCrc(last));
  assert.equal(last[5], 0);
  const registers = encodeRtuFrame(1, Uint8Array.of(4, 4, 1, 2, 3, 4));
  assert.equal(asLastPage(registers), registers);
});
