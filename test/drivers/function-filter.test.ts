// Only reading functions may reach a meter; the library contains the writing ones.
import assert from "node:assert/strict";
import { test } from "node:test";
import modbusSerial from "modbus-serial";
import { LinePort } from "../../drivers/modbus/line-port.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { openPty } from "../../simulator/pty.ts";

type Client = InstanceType<typeof modbusSerial.default>;

const writes: Record<string, (client: Client) => unknown> = {
  "5 write coil": (client) => client.writeCoil(1, true),
  "6 write register": (client) => client.writeRegister(1, 7),
  "15 write coils": (client) => client.writeCoils(1, [true, false]),
  "16 write registers": (client) => client.writeRegisters(1, [1, 2]),
  "20 read file (not needed, so not let through)": (client) => (client as unknown as Untyped).readFileRecords(1, 1),
  "22 mask write": (client) => client.maskWriteRegister(1, 0xff, 0),
  "23 read and write": (client) => (client as unknown as Untyped).readWriteRegisters(1, 1, 1, 1, [7]),
  "65 custom": (client) => client.customFunction(65, [1, 2, 3]),
};

/** What the library can and its declarations do not say. */
interface Untyped {
  readFileRecords(file: number, record: number): Promise<unknown>;
  readWriteRegisters(from: number, count: number, to: number, writes: number, words: number[]): Promise<unknown>;
}

test("the library has no further functions that ask a slave for something", () => {
  const asking = Object.getOwnPropertyNames(modbusSerial.default.prototype).filter((name) => /^write/.test(name));
  assert.deepEqual(asking.toSorted(), [
    ...["writeCoil", "writeCoils", "writeCustomFC", "writeFC1", "writeFC15", "writeFC16", "writeFC17", "writeFC2"],
    ...["writeFC20", "writeFC22", "writeFC23", "writeFC3", "writeFC4", "writeFC43", "writeFC5", "writeFC6"],
    ...["writeRegister", "writeRegisterEnron", "writeRegisters"],
  ]);
});

async function clientOnPty(t: { after(work: () => unknown): void }) {
  const pty = openPty();
  const received: number[] = [];
  let arrived = (): void => {};
  pty.onData((bytes) => {
    received.push(...bytes);
    arrived();
  });
  const transport = await openSerialPort({ path: pty.path, baud: 9600 });
  t.after(async () => {
    await transport.close();
    await pty.close();
  });
  const next = (): Promise<void> => new Promise((resolve) => (arrived = resolve));
  return { received, transport, next };
}

for (const [name, write] of Object.entries(writes)) {
  test(`function ${name}: refused with a reason, and no byte is on the wire`, async (t) => {
    const { received, transport, next } = await clientOnPty(t);
    const port = new LinePort("the test's line", (request) => void transport.write(request));
    const client = new modbusSerial.default(port);
    client.open();
    await assert.rejects(async () => write(client), { code: "function-refused", retryable: false });
    // What does pass afterwards is the first thing on the wire.
    const first = next();
    client.readInputRegisters(0, 2).catch(() => {});
    await first;
    assert.deepEqual(received.slice(0, 2), [1, 4]);
  });
}

test("control: through modbus-serial's own port the same call writes to the meter", async (t) => {
  const pty = openPty();
  const first = new Promise<Uint8Array>((resolve) => pty.onData(resolve));
  const client = new modbusSerial.default();
  await client.connectRTUBuffered(pty.path, { baudRate: 9600 });
  t.after(async () => {
    await new Promise((resolve) => client.close(resolve));
    await pty.close();
  });
  client.setID(1);
  client.writeRegister(1, 7).catch(() => {});
  assert.deepEqual([...(await first).subarray(0, 2)], [1, 6]);
});

for (const functionCode of [1, 2, 3, 4, 17, 43]) {
  test(`function ${functionCode} only reads and passes`, () => {
    const sent: number[] = [];
    new LinePort("x", (request) => sent.push(request[1]!)).write(Uint8Array.of(1, functionCode, 0, 0, 0, 1, 0, 0));
    assert.deepEqual(sent, [functionCode]);
  });
}
