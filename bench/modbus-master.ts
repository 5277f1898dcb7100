// A master of the Modbus benchmark as a process: `modbus-master.ts '{"kind": "ours", "paths": […], "baud": 9600, "parity": "none", "stopBits": 1}'`.
// Prints {"ready": true}; each line on stdin is an order {"polls", "units", "set", "wordSum"}, answered by {"elapsedMs", "cpuMs", "failed", "wrong"}.
import { createInterface } from "node:readline";
import { createRtuLine } from "../drivers/modbus/rtu-line.ts";
import { openSerialPort } from "../drivers/serial/serial-port.ts";
import { bitsPerCharacter } from "../drivers/serial/serial-settings.ts";
import { requestsOf } from "./modbus-register-set.ts";

export interface MasterOptions {
  readonly kind: string;
  readonly paths: readonly string[];
  readonly baud: number;
  readonly parity: "none" | "even";
  readonly stopBits: 1;
}

export interface MasterOrder {
  readonly polls: number;
  readonly units: readonly number[];
  readonly set: "blocks" | "singles";
  /** Of the words that a poll gives. */
  readonly wordSum: number;
}

export interface MasterReport {
  readonly elapsedMs: number;
  readonly cpuMs: number;
  /** Reads that gave an error; on a machine that is very busy, time-outs. */
  readonly failed: number;
  /** Polls without an error whose words were not those of the meter. */
  readonly wrong: number;
}

type Read = (unit: number, address: number, count: number) => Promise<Iterable<number>>;

const timeoutMs = 2000;

async function ours(path: string, { baud, parity, stopBits }: MasterOptions): Promise<Read> {
  const settings = { path, baud, parity, stopBits };
  const openTransport = (): ReturnType<typeof openSerialPort> => openSerialPort(settings);
  const line = createRtuLine({ description: path, openTransport, baud, bitsPerCharacter: bitsPerCharacter(settings) });
  await line.open();
  return (unit, address, count) => line.readRegisters({ unit, functionCode: 4, address, count, timeoutMs, gapMs: 0 });
}

async function modbusSerial(path: string, { baud, parity, stopBits }: MasterOptions): Promise<Read> {
  const { default: module } = await import("modbus-serial");
  const client = new module.default();
  await client.connectRTUBuffered(path, { baudRate: baud, parity, stopBits, dataBits: 8 });
  client.setTimeout(timeoutMs);
  return async (unit, address, count) => {
    client.setID(unit);
    return (await client.readInputRegisters(address, count)).data;
  };
}

async function poll(
  read: Read,
  { polls, units, set, wordSum }: MasterOrder,
): Promise<{ failed: number; wrong: number }> {
  const requests = requestsOf(set);
  let [failed, wrong] = [0, 0];
  for (let i = 0; i < polls; i++) {
    let sum = 0;
    const failedBefore = failed;
    for (const { address, count } of requests) {
      try {
        for (const word of await read(units[i % units.length] ?? 1, address, count)) sum += word;
      } catch {
        failed++;
      }
    }
    if (failed === failedBefore && sum !== wordSum) wrong++;
  }
  return { failed, wrong };
}

if (import.meta.main) {
  const options = JSON.parse(process.argv[2] ?? "{}") as MasterOptions;
  const open = options.kind === "ours" ? ours : modbusSerial;
  const reads = await Promise.all(options.paths.map((path) => open(path, options)));
  createInterface({ input: process.stdin })
    .on("line", async (text) => {
      const order = JSON.parse(text) as MasterOrder;
      const [cpu, fromMs] = [process.cpuUsage(), performance.now()];
      const results = await Promise.all(reads.map((read) => poll(read, order)));
      const { user, system } = process.cpuUsage(cpu);
      const report: MasterReport = {
        elapsedMs: performance.now() - fromMs,
        cpuMs: (user + system) / 1000,
        failed: results.reduce((sum, { failed }) => sum + failed, 0),
        wrong: results.reduce((sum, { wrong }) => sum + wrong, 0),
      };
      process.stdout.write(`${JSON.stringify(report)}\n`);
    })
    .on("close", () => process.exit(0));
  process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
}
