import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, symlink } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { SerialPort } from "serialport";
import { classifyOpenFailure, describeOpenFailure, findPortHolders } from "../../drivers/serial/port-failure.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { listSerialPorts } from "../../drivers/serial/serial-port-list.ts";
import { bitsPerCharacter, describeFraming } from "../../drivers/serial/serial-settings.ts";
import { openPty } from "../../simulator/pty.ts";
import { temporaryFolder } from "./sdm630-line.ts";

const isRoot = process.getuid?.() === 0;

test("bytes go both ways, through a symlink, with even parity", async (t) => {
  const pty = openPty();
  t.after(() => pty.close());
  const link = path.join(await temporaryFolder(t), "port");
  await symlink(pty.path, link);
  const port = await openSerialPort({ path: link, baud: 19_200, parity: "even" });
  t.after(() => port.close());
  assert.equal(port.description, `${link} at 19200 8E1`);
  const toMaster = new Promise<Uint8Array>((resolve) => pty.onData(resolve));
  await port.write(Uint8Array.of(0, 1, 13, 10, 255));
  assert.deepEqual([...(await toMaster)], [0, 1, 13, 10, 255]);
  const toPort = new Promise<Uint8Array>((resolve) => port.onData(resolve));
  pty.write(Uint8Array.of(3, 4, 26, 13, 10));
  assert.deepEqual([...(await toPort)], [3, 4, 26, 13, 10]);
});

test("a port that does not exist: the message says what is there instead", async () => {
  await assert.rejects(openSerialPort({ path: "/dev/ttyNOWHERE", baud: 9600 }), {
    code: "port-not-found",
    retryable: false,
    message: /^Serial port \/dev\/ttyNOWHERE: expected a device, found none; .*\/dev\/serial\/by-id/,
  });
});

test("a file that is no serial port", async () => {
  await assert.rejects(openSerialPort({ path: "/dev/null", baud: 9600 }), {
    code: "port-open-failed",
    message: /\/dev\/null: could not be opened as a serial port/,
  });
});

test("a busy port: the message names the process that has it", async (t) => {
  const pty = openPty();
  t.after(() => pty.close());
  const first = await openSerialPort({ path: pty.path, baud: 9600 });
  t.after(() => first.close());
  await assert.rejects(openSerialPort({ path: pty.path, baud: 9600 }), {
    code: "port-busy",
    message: new RegExp(`this process itself \\(pid ${process.pid}\\)`),
  });
});

test("another process that holds a device is found by its pid and name", async (t) => {
  const pty = openPty();
  t.after(() => pty.close());
  const holder = spawn("sh", ["-c", 'exec 3<>"$0"; echo ready; exec sleep 60', pty.path], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  t.after(() => holder.kill());
  await once(holder.stdout, "data");
  const holders = await findPortHolders(pty.path);
  const found = holders.find(({ pid }) => pid === holder.pid);
  assert.ok(found !== undefined, JSON.stringify(holders));
  assert.match(found.command, /^(sleep|sh)$/);
  const text = describeOpenFailure("port-busy", pty.path, "", [], [found]);
  assert.match(text, new RegExp(`held by (sleep|sh) \\(pid ${holder.pid}\\)\\. Stop that program`));
});

test("a port that this user may not open", { skip: isRoot && "root may open anything" }, async (t) => {
  const pty = openPty();
  t.after(() => pty.close());
  await chmod(pty.path, 0);
  await assert.rejects(openSerialPort({ path: pty.path, baud: 9600 }), { code: "port-not-permitted" });
});

test("what the binding says is classed by its cause, and each class says what to do", () => {
  const cases = {
    "Error: No such file or directory, cannot open /dev/x": "port-not-found",
    "Error: Permission denied, cannot open /dev/x": "port-not-permitted",
    "Error Resource temporarily unavailable Cannot lock port": "port-busy",
    "Error: Device or resource busy, cannot open /dev/x": "port-busy",
    "Error: Inappropriate ioctl for device, cannot open /dev/x": "port-open-failed",
  } as const;
  for (const [text, code] of Object.entries(cases)) assert.equal(classifyOpenFailure(text), code);
  assert.match(
    describeOpenFailure("port-not-permitted", "/dev/ttyUSB0", "", [], []),
    /group dialout: run "sudo usermod -aG dialout \$USER"/,
  );
  assert.match(
    describeOpenFailure("port-not-found", "/dev/x", "", ["/dev/serial/by-id/usb-FTDI"], []),
    /present are: \/dev\/serial\/by-id\/usb-FTDI/,
  );
  assert.match(describeOpenFailure("port-busy", "/dev/x", "", [], []), /only root can see/);
});

test("a closed port can be opened again at once: close waits until the lock is gone", async (t) => {
  const pty = openPty();
  t.after(() => pty.close());
  for (let i = 0; i < 5; i++) {
    const port = await openSerialPort({ path: pty.path, baud: 9600 });
    const ended = new Promise<Error | undefined>((resolve) => port.onClosed(resolve));
    await Promise.all([port.close(), port.close()]);
    assert.equal(await ended, undefined, "an end that was asked for carries no error");
    await port.close();
    await assert.rejects(port.write(Uint8Array.of(1)), { code: "port-closed" });
  }
});

test("a hang-up between two reads ends the port with an error", async () => {
  const pty = openPty();
  const port = await openSerialPort({ path: pty.path, baud: 9600 });
  const ended = new Promise<Error | undefined>((resolve) => port.onClosed(resolve));
  // The pty is closed while the bytes are being delivered, so that the next read finds the line hung up already.
  port.onData(() => void pty.close());
  pty.write(Uint8Array.of(1));
  assert.match((await ended)?.message ?? "", /the device went away.*opened again by itself/);
  await assert.rejects(port.write(Uint8Array.of(1)), { code: "port-lost" });
  await port.close();
});

test("control: without the guard the same hang-up is read again for ever and the port looks open", async () => {
  const pty = openPty();
  const port = new SerialPort({ path: pty.path, baudRate: 9600, autoOpen: false });
  await new Promise<void>((resolve, reject) => port.open((error) => (error ? reject(error) : resolve())));
  let events = 0;
  port.on("close", () => events++);
  port.on("error", () => events++);
  const hungUp = new Promise<void>((resolve) => port.on("data", () => void pty.close().then(resolve)));
  pty.write(Uint8Array.of(1));
  await hungUp;
  const before = process.cpuUsage();
  const startedMs = performance.now();
  while (performance.now() - startedMs < 300) await new Promise((resolve) => setImmediate(resolve));
  const looksOpen = port.isOpen && events === 0;
  const { system } = process.cpuUsage(before);
  await new Promise<void>((resolve) => (port.isOpen ? port.close(() => resolve()) : resolve()));
  assert.ok(
    looksOpen,
    `the binding noticed by itself (${events} events, ${system} µs): the guard is not needed any more`,
  );
});

test("the list names each device once", async () => {
  const ports = await listSerialPorts();
  assert.equal(new Set(ports.map(({ device }) => device)).size, ports.length);
});

test("framing as makers print it, and the bits of a character", () => {
  assert.equal(describeFraming({ path: "x", baud: 9600 }), "9600 8N1");
  assert.equal(describeFraming({ path: "x", baud: 2400, dataBits: 7, parity: "odd", stopBits: 2 }), "2400 7O2");
  assert.equal(bitsPerCharacter({}), 10);
  assert.equal(bitsPerCharacter({ parity: "even" }), 11);
});
