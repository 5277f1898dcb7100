import assert from "node:assert/strict";
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { createRtuLine } from "../../drivers/modbus/rtu-line.ts";
import { createRtuTcpLine, createTcpLine } from "../../drivers/modbus/tcp-line.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { temporaryFolder } from "./simulated-bus-fixture.ts";

const program = join(import.meta.dirname, "../../cli/ecp-demo.ts");

interface Simulation {
  readonly child: ChildProcessWithoutNullStreams;
  readonly started: { path?: string; address?: string; meters: { unit: number; profile: string }[] };
  /** Sends a command and gives the event that answers it. */
  tell(command: string): Promise<Record<string, unknown>>;
}

async function simulate(t: TestContext, ...args: readonly string[]): Promise<Simulation> {
  const all = [program, "simulate", "modbus", ...args, "--json", "--control", "--exit-with-parent"];
  const child = spawn(process.execPath, all, { timeout: 60_000 });
  t.after(() => child.kill());
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const event = async () => JSON.parse((await lines.next()).value ?? "{}");
  const started = await event();
  const tell = (command: string) => {
    child.stdin.write(`${command}\n`);
    return event();
  };
  return { child, started, tell };
}

const read = { functionCode: 4, address: 0x33, count: 1, timeoutMs: 300, slowestAnswerMs: 300 } as const;

for (const [flags, understood, refused] of [
  [["--baud", "19200"], ["none", "even"], []],
  [["--parity", "even"], ["even"], ["none"]],
] as const)
  test(`${flags.join(" ")}: the line keeps to what is said, and to the factory's speed`, async (t) => {
    const link = join(temporaryFolder(t), "bus.tty");
    await simulate(t, "--profile", "schneider-iem3155", "--port", link, ...flags);
    const ask = async (parity: "none" | "even"): Promise<unknown> => {
      const openTransport = () => openSerialPort({ path: link, baud: 19_200, parity });
      const line = createRtuLine({ description: link, openTransport, baud: 19_200, bitsPerCharacter: 11 });
      t.after(() => line.close());
      const words = {
        functionCode: 3,
        address: 3059,
        count: 2,
        unit: 1,
        timeoutMs: 500,
        slowestAnswerMs: 500,
      } as const;
      return line.readRegisters(words).finally(() => line.close());
    };
    for (const parity of understood) await ask(parity);
    for (const parity of refused) await assert.rejects(ask(parity), { code: "crc-error" });
  });

test("several meters on one line at a speed that is kept; faults, cable and noise while it runs", async (t) => {
  const link = join(temporaryFolder(t), "bus.tty");
  const meters = ["--meter", "cg-em340@1", "--meter", "cg-em340@2", "--fault", "2=exception:6"];
  const { child, started, tell } = await simulate(t, ...meters, "--port", link, "--baud", "19200", "--parity", "even");
  assert.deepEqual(started.meters, [
    { unit: 1, profile: "cg-em340" },
    { unit: 2, profile: "cg-em340" },
  ]);
  const lineAt = (baud: number, parity: "none" | "even") => {
    const openTransport = () => openSerialPort({ path: link, baud, parity });
    const line = createRtuLine({
      description: link,
      openTransport,
      baud,
      bitsPerCharacter: parity === "none" ? 10 : 11,
    });
    t.after(() => line.close());
    return line;
  };
  const line = lineAt(19_200, "even");
  const [frequency] = await line.readRegisters({ ...read, unit: 1 });
  assert.ok(frequency !== undefined && frequency > 490 && frequency < 510, `${frequency}`);
  await assert.rejects(line.readRegisters({ ...read, unit: 2 }), { code: "modbus-exception", exceptionCode: 6 });
  assert.deepEqual(await tell("fault 2 none"), { event: "fault", unit: 2, fault: "none" });
  await line.readRegisters({ ...read, unit: 2 });
  assert.equal((await tell("fault 1 bad-crc*1")).event, "fault");
  await assert.rejects(line.readRegisters({ ...read, unit: 1 }), { code: "crc-error" });
  await line.readRegisters({ ...read, unit: 1 });
  for (const wrong of ["fault 9 lost", "fault 1 nonsense", "noise 0", "dance"])
    assert.equal((await tell(wrong)).event, "refused", wrong);
  assert.equal((await tell("noise 20")).event, "noise");
  assert.equal((await tell("cut")).event, "cut");
  await assert.rejects(line.readRegisters({ ...read, unit: 1 }));
  assert.equal((await tell("plug")).event, "plug");
  await line.close();
  const other = lineAt(9600, "none");
  await assert.rejects(other.readRegisters({ ...read, unit: 1 }), { code: "crc-error" });
  await other.close();
  child.stdin.end();
  assert.deepEqual(await once(child, "close"), [0, null]);
});

test("over TCP with either framing", async (t) => {
  for (const framing of ["tcp", "rtu"] as const) {
    const { started } = await simulate(t, "--profile", "cg-em340", "--tcp", "127.0.0.1:0", "--framing", framing);
    const [host = "", port] = (started.address ?? "").split(":");
    const line = (framing === "rtu" ? createRtuTcpLine : createTcpLine)({ host, port: Number(port) });
    t.after(() => line.close());
    assert.equal((await line.readRegisters({ ...read, unit: 1 })).length, 1, framing);
  }
});

test("wrong usage ends it at once, and a file in the link's place stays", async (t) => {
  const run = async (...args: readonly string[]) => {
    const child = spawn(process.execPath, [program, "simulate", "modbus", ...args], {
      stdio: ["ignore", "ignore", "pipe"],
      timeout: 20_000,
    });
    const [[status], error] = await Promise.all([once(child, "close"), text(child.stderr)]);
    return { status, error };
  };
  for (const [args, problem] of [
    [[], /neither --profile NAME nor --meter/],
    [["--profile", "nobody"], /nobody/],
    [["--meter", "cg-em340"], /NAME@UNIT was expected/],
    [["--profile", "cg-em340", "--unit", "0"], /from 1 to 247/],
    [["--profile", "cg-em340", "--fault", "sleepy"], /one of silent, lost/],
    [["--profile", "cg-em340", "--fault", "7=lost"], /the units are 1/],
    [["--profile", "cg-em340", "--parity", "mark"], /none, even, odd or any/],
    [["--profile", "cg-em340", "--tcp", "x"], /HOST:PORT/],
    [["--profile", "cg-em340", "--tcp", "127.0.0.1:0", "--baud", "9600"], /a line is one of the two/],
    [["--profile", "cg-em340", "--framing", "rtu"], /--framing without --tcp/],
  ] as const) {
    const { status, error } = await run(...args);
    assert.equal(status, 64, `${args}: ${error}`);
    assert.match(error, problem);
  }
  const file = join(temporaryFolder(t), "letter.txt");
  writeFileSync(file, "dear reader");
  assert.equal((await run("--profile", "cg-em340", "--port", file)).status, 73);
});
