// A pulled cable that comes back under another device name, while another adapter takes the old one.
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import path from "node:path";
import { type TestContext, test } from "node:test";
import type { ByteTransport } from "../../drivers/byte-transport.ts";
import type { ModbusLine } from "../../drivers/modbus/line.ts";
import { readMeter } from "../../drivers/modbus/meter-reader.ts";
import { createRtuLine } from "../../drivers/modbus/rtu-line.ts";
import { serialPortOpener } from "../../drivers/serial/port-identity.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { openPty, replaceSymlink } from "../../simulator/pty.ts";
import { runSimulatedMeter } from "../../simulator/simulated-meter.ts";
import { baud, quickProfile, temporaryFolder, testNowMs } from "./sdm630-line.ts";

function lineOver(t: TestContext, description: string, openTransport: () => Promise<ByteTransport>): ModbusLine {
  const line = createRtuLine({ description, openTransport, baud, bitsPerCharacter: 10 });
  t.after(() => line.close());
  return line;
}

const meterOne = { profile: quickProfile, unit: 1 };

test("renumbered: the adapter is found by its stable name, and the one that has its old name is left alone", async (t) => {
  const folder = await temporaryFolder(t);
  const meter = await runSimulatedMeter({ link: path.join(folder, "usb-Adapter_A"), baud, now: () => testNowMs });
  t.after(() => meter.close());
  const device = meter.path;
  assert.ok(device !== undefined);
  // The device node is configured, as /dev/ttyUSB0 would be; udev's folder is this one.
  const line = lineOver(t, device, serialPortOpener({ path: device, baud }, folder));
  const expected = await readMeter(line, meterOne);
  assert.equal(expected.status, 0, expected.detail);

  await meter.cut();
  const readings = [await readMeter(line, meterOne)];
  // The system gives the number to whoever asks next: here another house's meter, unless another program was quicker.
  const other = await runSimulatedMeter({ seed: 7, baud, now: () => testNowMs });
  t.after(() => other.close());
  readings.push(await readMeter(line, meterOne), await readMeter(line, meterOne));
  for (const { status, values } of readings) {
    assert.equal(status, 3);
    assert.ok(values.every((value) => value === 0));
  }
  assert.match(readings[2]?.detail ?? "", /expected the adapter usb-Adapter_A that was there, found it unplugged/);

  await meter.reconnect();
  assert.deepEqual(await readMeter(line, meterOne), expected, "the next reading is right");

  if (other.path !== device) {
    t.diagnostic(`the number of ${device} went to another program: the control was left out`);
    return;
  }
  // Control: who opens by the old name reads another house's meter, and nothing says so.
  const careless = lineOver(t, device, () => openSerialPort({ path: device, baud }));
  const foreign = await readMeter(careless, meterOne);
  assert.equal(foreign.status, 0);
  assert.notDeepEqual(foreign.values, expected.values);
});

test("gone without any event: one time-out and a look at where the path leads are enough", async (t) => {
  const link = path.join(await temporaryFolder(t), "usb-Adapter_A");
  const options = { link, baud, now: () => testNowMs };
  const meter = await runSimulatedMeter(options);
  t.after(() => meter.close());
  const line = lineOver(t, link, serialPortOpener({ path: link, baud }));
  const expected = await readMeter(line, meterOne);
  // The old pty stays open and silent; the link leads to another one.
  meter.setFault({ kind: "silent" });
  const again = await runSimulatedMeter(options);
  t.after(() => again.close());
  const reading = await readMeter(line, meterOne);
  const timeouts = line.counters.get(1)?.timeouts;
  assert.equal(timeouts, 1, "the second try went to the new device");
  assert.deepEqual(reading, expected);
  assert.equal(line.reopenings, 1);
});

test("a port knows whether its path still leads to it: not once it leads to another device, or to none", async (t) => {
  const link = path.join(await temporaryFolder(t), "port");
  const [first, second] = [openPty(), openPty()];
  t.after(() => Promise.all([first.close(), second.close()]));
  await replaceSymlink(link, first.path);
  const port = await openSerialPort({ path: link, baud });
  t.after(() => port.close());
  assert.equal(await port.isCurrent?.(), true);
  await replaceSymlink(link, second.path);
  assert.equal(await port.isCurrent?.(), false);
  await replaceSymlink(link, first.path);
  assert.equal(await port.isCurrent?.(), true);
  await rm(link);
  assert.equal(await port.isCurrent?.(), false);
});

test("a loss is told when the descriptor is gone: the same path can be opened from within", async (t) => {
  const link = path.join(await temporaryFolder(t), "port");
  const meter = await runSimulatedMeter({ link, baud, now: () => testNowMs });
  t.after(() => meter.close());
  const port = await openSerialPort({ path: link, baud });
  port.onData(() => {});
  const reopened = new Promise<ByteTransport>((resolve, reject) =>
    port.onClosed(() => void meter.reconnect().then(() => openSerialPort({ path: link, baud }).then(resolve, reject))),
  );
  await meter.cut();
  await (await reopened).close();
});

test("few wake-ups: what is expected is not read in every piece, and arrives whole", async (t) => {
  const pty = openPty();
  t.after(() => pty.close());
  const port = await openSerialPort({ path: pty.path, baud: 9600 });
  t.after(() => port.close());
  let pieces: number[] = [];
  let arrived = (): void => {};
  port.onData((bytes) => {
    pieces.push(bytes.length);
    arrived();
  });
  const receipt = (): Promise<void> => new Promise((resolve) => (arrived = resolve));
  // Control: without the hint each piece wakes the program, and is there before the next one is sent.
  for (let sent = 0; sent < 40; sent += 4) {
    const received = receipt();
    pty.write(new Uint8Array(4));
    await received;
  }
  assert.deepEqual(pieces, Array(10).fill(4));

  pieces = [];
  await port.write(Uint8Array.of(1));
  port.expect?.(40, 20);
  const first = receipt();
  pty.write(new Uint8Array(4));
  await first;
  const rest = receipt();
  for (let sent = 4; sent < 40; sent += 4) pty.write(new Uint8Array(4));
  await rest;
  assert.deepEqual(pieces, [4, 36]);
});
