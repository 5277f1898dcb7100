import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import modbusSerial from "modbus-serial";
import { encodeMbapFrame, type MbapFrame, MbapParser } from "../../drivers/modbus/mbap.ts";
import { readMeter } from "../../drivers/modbus/meter-reader.ts";
import { createRtuTcpLine, createTcpLine } from "../../drivers/modbus/tcp-line.ts";
import { runSimulatedMeter } from "../../simulator/simulated-meter.ts";
import { quickProfile, testNowMs } from "./sdm630-line.ts";

const host = "127.0.0.1";

async function startTcpMeter(t: TestContext) {
  const meter = await runSimulatedMeter({ tcp: { host, port: 0 }, now: () => testNowMs });
  const port = Number(meter.address?.split(":")[1]);
  const line = createTcpLine({ host, port });
  t.after(async () => {
    await line.close();
    await meter.close();
  });
  return { meter, line, port };
}

/** A server that hands each request to `serve` and answers nothing by itself. */
async function startServer(t: TestContext, serve: (request: MbapFrame, socket: Socket) => void): Promise<number> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    const parser = new MbapParser();
    socket.on("data", (bytes) => {
      for (const request of parser.push(bytes)) serve(request, socket);
    });
  });
  server.listen(0, host);
  await once(server, "listening");
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  return address.port;
}

/** Function 4, two registers, every byte `fill`. */
const answerTo = (request: Pick<MbapFrame, "transaction" | "unit">, fill: number): Uint8Array =>
  encodeMbapFrame({ ...request, pdu: Uint8Array.of(4, 4, fill, fill, fill, fill) });
const readTwo = { unit: 1, functionCode: 4, address: 0, count: 2, timeoutMs: 60 } as const;

test("a meter behind Modbus TCP reads the same as on its serial line", async (t) => {
  const { line } = await startTcpMeter(t);
  const reading = await readMeter(line, { profile: quickProfile, unit: 1 });
  assert.equal(reading.status, 0, reading.detail);
  assert.equal(reading.values.length, 12);
});

test("half an answer and a late one behind it are never taken for one, whatever number the whole has", async (t) => {
  const answer = (request: MbapFrame, fill: number): Uint8Array =>
    encodeMbapFrame({ ...request, pdu: Uint8Array.of(4, 40, ...Array(40).fill(fill)) });
  let late: MbapFrame | undefined;
  const port = await startServer(t, (request, socket) => {
    if (late === undefined) {
      late = request;
      return;
    }
    socket.write(Uint8Array.from([...answer(request, 7).subarray(0, 30), ...answer(late, 9)]));
  });
  const line = createTcpLine({ host, port });
  t.after(() => line.close());
  const read = { ...readTwo, count: 20 };
  await assert.rejects(line.readRegisters(read), { code: "timeout" });
  await assert.rejects(line.readRegisters(read), { code: "wrong-reply" });
});

test("an answer that is late is rejected by its transaction id", async (t) => {
  let requests = 0;
  const port = await startServer(t, (request, socket) => {
    requests++;
    if (requests === 1) return;
    // The late answer to the first request comes right before the answer to this one.
    if (requests === 2) socket.write(answerTo({ transaction: request.transaction - 1, unit: 1 }, 0x11));
    socket.write(answerTo(request, 0x22));
  });
  const line = createTcpLine({ host, port });
  t.after(() => line.close());
  await assert.rejects(line.readRegisters(readTwo), { code: "timeout" });
  assert.deepEqual([...(await line.readRegisters({ ...readTwo, timeoutMs: 5000 }))], [0x2222, 0x2222]);
  assert.equal(line.counters.get(1)?.late, 1);
});

test("control: modbus-serial's own TCP port takes an answer 256 requests old", async (t) => {
  let first: MbapFrame | undefined;
  let requests = 0;
  const port = await startServer(t, (request, socket) => {
    requests++;
    first ??= request;
    if (requests === 1) return;
    if (requests === 257) socket.write(answerTo(first, 0x11));
    socket.write(answerTo(request, 0x22));
  });
  const client = new modbusSerial.default();
  await client.connectTCP(host, { port });
  t.after(() => client.destroy(() => {}));
  client.setID(1);
  client.setTimeout(40);
  await assert.rejects(client.readInputRegisters(0, 2));
  client.setTimeout(5000);
  for (let i = 2; i <= 256; i++) assert.deepEqual((await client.readInputRegisters(0, 2)).data, [0x2222, 0x2222]);
  assert.deepEqual((await client.readInputRegisters(0, 2)).data, [0x1111, 0x1111]);
});

test("ours does not: its ids have all sixteen bits", async (t) => {
  let first: MbapFrame | undefined;
  let requests = 0;
  const port = await startServer(t, (request, socket) => {
    requests++;
    first ??= request;
    if (requests === 1) return;
    if (requests === 257) socket.write(answerTo(first, 0x11));
    socket.write(answerTo(request, 0x22));
  });
  const line = createTcpLine({ host, port });
  t.after(() => line.close());
  await assert.rejects(line.readRegisters(readTwo));
  const patient = { ...readTwo, timeoutMs: 5000 };
  for (let i = 2; i <= 258; i++) assert.deepEqual([...(await line.readRegisters(patient))], [0x2222, 0x2222]);
});

for (const [name, pdu, unit, code] of [
  ["another unit", [4, 4, 1, 1, 1, 1], 2, "wrong-unit"],
  ["another function", [3, 4, 1, 1, 1, 1], 1, "wrong-reply"],
  ["another length", [4, 2, 1, 1], 1, "wrong-reply"],
  ["a byte count that is not its length", [4, 2, 1, 1, 1, 1], 1, "wrong-reply"],
] as const) {
  test(`an answer with ${name} is not taken`, async (t) => {
    const port = await startServer(t, ({ transaction }, socket) => {
      socket.write(encodeMbapFrame({ transaction, unit, pdu: Uint8Array.from(pdu) }));
    });
    const line = createTcpLine({ host, port });
    t.after(() => line.close());
    await assert.rejects(line.readRegisters(readTwo), { code });
  });
}

test("answers cut into single bytes and glued together are both understood", async (t) => {
  const port = await startServer(t, async (request, socket) => {
    for (const byte of answerTo(request, 0x33)) {
      socket.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
  });
  const line = createTcpLine({ host, port });
  t.after(() => line.close());
  assert.deepEqual([...(await line.readRegisters({ ...readTwo, timeoutMs: 2000 }))], [0x3333, 0x3333]);
  const parser = new MbapParser();
  const glued = [...answerTo({ transaction: 1, unit: 1 }, 1), ...answerTo({ transaction: 2, unit: 1 }, 2)];
  assert.deepEqual(
    parser.push(Uint8Array.from(glued)).map(({ transaction }) => transaction),
    [1, 2],
  );
});

test("bytes that are no Modbus header end the connection; the next read makes a new one", async (t) => {
  const { meter, line } = await startTcpMeter(t);
  const expected = await readMeter(line, { profile: quickProfile, unit: 1 });
  meter.setFault({ kind: "garbage" }, 1);
  await assert.rejects(line.readRegisters({ ...readTwo, timeoutMs: 60_000 }), { code: "wrong-reply" });
  assert.equal(line.isOpen, false);
  assert.deepEqual(await readMeter(line, { profile: quickProfile, unit: 1 }), expected);
});

test("a connection that breaks gives status D at once, and the next reading is right", async (t) => {
  const { meter, line } = await startTcpMeter(t);
  const profile = { ...quickProfile, timeoutMs: 60_000 };
  const expected = await readMeter(line, { profile, unit: 1 });
  meter.setFault({ kind: "silent" });
  const before = meter.slave.requests;
  const reading = readMeter(line, { profile, unit: 1 });
  while (meter.slave.requests === before) await new Promise((resolve) => setImmediate(resolve));
  await meter.cut();
  assert.equal((await reading).status, 3);
  meter.setFault(undefined);
  assert.deepEqual(await readMeter(line, { profile, unit: 1 }), expected);
});

test("nobody listens: refused, with what to check", async (t) => {
  const server = createServer();
  server.listen(0, host);
  await once(server, "listening");
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  await new Promise((resolve) => server.close(resolve));
  const line = createTcpLine({ host, port: address.port });
  t.after(() => line.close());
  await assert.rejects(line.open(), {
    code: "connection-refused",
    message: /the connection was refused\. Check the port/,
  });
  const reading = await readMeter(line, { profile: quickProfile, unit: 1 });
  assert.equal(reading.status, 3);
});

test("a host that does not exist", async (t) => {
  const line = createTcpLine({ host: "meter.invalid", port: 502 });
  t.after(() => line.close());
  await assert.rejects(line.open(), { code: "connection-failed", message: /meter\.invalid:502: could not be reached/ });
});

test("a meter behind a gateway that passes RTU frames on reads the same; a late answer is kept out as on a serial line", async (t) => {
  const meter = await runSimulatedMeter({ tcp: { host, port: 0, framing: "rtu" }, now: () => testNowMs });
  const line = createRtuTcpLine({ host, port: Number(meter.address?.split(":")[1]) });
  t.after(async () => {
    await line.close();
    await meter.close();
  });
  const expected = await readMeter(line, { profile: quickProfile, unit: 1 });
  assert.equal(expected.status, 0, expected.detail);
  meter.setFault({ kind: "late", byMs: 500 }, 1);
  for (let i = 0; i < 3; i++) {
    const reading = await readMeter(line, { profile: quickProfile, unit: 1 });
    if (reading.status === 0) assert.deepEqual(reading.values, expected.values);
  }
  assert.deepEqual(await readMeter(line, { profile: quickProfile, unit: 1 }), expected);
  meter.setFault({ kind: "bad crc" });
  assert.equal((await readMeter(line, { profile: quickProfile, unit: 1 })).status, 11);
});
