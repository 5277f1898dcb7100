import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, readlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { NotASymlink, openPty, replaceSymlink } from "../../simulator/pty.ts";
import { runSimulatedMeter } from "../../simulator/simulated-meter.ts";
import { temporaryFolder } from "../drivers/sdm630-line.ts";

test("one user of the line may follow another: the pty stays when the slave is closed", async (t) => {
  const pty = openPty();
  t.after(() => pty.close());
  let arrived: (bytes: Uint8Array) => void = () => {};
  pty.onData((bytes) => arrived(bytes));
  for (const value of [1, 2, 3]) {
    const bytes = new Promise<Uint8Array>((resolve) => (arrived = resolve));
    const port = await openSerialPort({ path: pty.path, baud: 9600 });
    await port.write(Uint8Array.of(value));
    assert.deepEqual([...(await bytes)], [value]);
    await port.close();
  }
});

test("closing a pty signals nobody: a process of our own session lives on", async (t) => {
  const bystander = spawn("sleep", ["60"], { stdio: "ignore" });
  t.after(() => bystander.kill());
  await once(bystander, "spawn");
  const pty = openPty();
  await pty.close();
  await pty.close();
  pty.write(Uint8Array.of(1));
  process.kill(bystander.pid!, 0);
  assert.equal(bystander.exitCode, null);
  assert.equal(bystander.signalCode, null);
});

test("what nobody reads is lost without harm", async (t) => {
  const pty = openPty();
  t.after(() => pty.close());
  for (let i = 0; i < 200; i++) pty.write(new Uint8Array(1000));
});

test("the link is replaced in one step and never missing", async (t) => {
  const link = path.join(await temporaryFolder(t), "meter.tty");
  await replaceSymlink(link, "/dev/pts/first");
  await replaceSymlink(link, "/dev/pts/second");
  assert.equal(await readlink(link), "/dev/pts/second");
});

test("a meter cut off and plugged in again has its link and its path", async (t) => {
  const link = path.join(await temporaryFolder(t), "meter.tty");
  const meter = await runSimulatedMeter({ link });
  t.after(() => meter.close());
  assert.equal(await readlink(link), meter.path);
  await meter.cut();
  assert.equal(meter.path, undefined);
  await assert.rejects(readlink(link), { code: "ENOENT" });
  await meter.reconnect();
  assert.equal(await readlink(link), meter.path);
  assert.equal(meter.address, undefined);
});

test("a file or folder where the link is to be made is left alone, and the pty is let go", async (t) => {
  const folder = await temporaryFolder(t);
  const link = path.join(folder, "meter.tty");
  await writeFile(link, "mine");
  await assert.rejects(runSimulatedMeter({ link, tcp: { host: "127.0.0.1", port: 0 } }), NotASymlink);
  await assert.rejects(runSimulatedMeter({ link: folder }), NotASymlink);
  assert.equal(await readFile(link, "utf8"), "mine");
});
