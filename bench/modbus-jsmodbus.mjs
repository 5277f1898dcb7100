// jsmodbus as a master of the Modbus benchmark; the same orders and reports as modbus-master.ts.
import { createInterface } from "node:readline";
import modbus from "jsmodbus";
import { SerialPort } from "serialport";
import { requestsOf } from "./modbus-register-set.ts";

const { paths, baud, parity, stopBits } = JSON.parse(process.argv[2] ?? "{}");
const port = new SerialPort({ path: paths[0], baudRate: baud, parity, stopBits, dataBits: 8, autoOpen: false });
const clients = new Map();
const clientOf = (unit) => {
  if (!clients.has(unit)) clients.set(unit, new modbus.client.RTU(port, unit, 2000));
  return clients.get(unit);
};
await new Promise((resolve, reject) => port.open((error) => (error ? reject(error) : resolve())));
createInterface({ input: process.stdin })
  .on("line", async (text) => {
    const { polls, units, set, wordSum } = JSON.parse(text);
    const requests = requestsOf(set);
    const [cpu, fromMs] = [process.cpuUsage(), performance.now()];
    let [failed, wrong] = [0, 0];
    for (let i = 0; i < polls; i++) {
      let sum = 0;
      const failedBefore = failed;
      for (const { address, count } of requests) {
        try {
          const { response } = await clientOf(units[i % units.length]).readInputRegisters(address, count);
          for (const word of response.body.valuesAsArray) sum += word;
        } catch {
          failed++;
        }
      }
      if (failed === failedBefore && sum !== wordSum) wrong++;
    }
    const { user, system } = process.cpuUsage(cpu);
    const report = { elapsedMs: performance.now() - fromMs, cpuMs: (user + system) / 1000, failed, wrong };
    process.stdout.write(`${JSON.stringify(report)}\n`);
  })
  .on("close", () => process.exit(0));
process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
