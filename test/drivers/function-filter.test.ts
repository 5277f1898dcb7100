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
  "22 mask write": (client) => client.maskWriteRegister(1, 0xff, 0),
  "65 custom": (client) => client.customFunction(65, [1, 2, 3]),
};

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

test("control: without the filter the same call writes to the meter", async (t) => {
  const { received, transport, next } = await clientOnPty(t);
  const port = new LinePort("the test's line", () => {});
  port.write = (request) => void transport.write(request);
  const client = new modbusSerial.default(port);
  client.open();
  const first = next();
  client.writeRegister(1, 7).catch(() => {});
  await first;
  assert.deepEqual(received.slice(0, 2), [1, 6]);
});

for (const functionCode of [1, 2, 3, 4, 17, 43]) {
  test(`function ${functionCode} only reads and passes`, () => {
    const sent: number[] = [];
    new LinePort("x", (request) => sent.push(request[1]!)).write(Uint8Array.of(1, functionCode, 0, 0, 0, 1, 0, 0));
    assert.deepEqual(sent, [functionCode]);
  });
}
