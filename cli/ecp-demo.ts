#!/usr/bin/env node
/** ecp-demo: all of it on one machine, to watch, to test against, and to break. */
import { version } from "../platform/version.ts";
import { type Program, runProgram } from "./command.ts";

const program: Program = {
  name: "ecp-demo",
  version,
  intro: "a whole energy community on one machine: a simulated meter, a hub, a full node",
  exitHelp: `Exit status
   0  everything that was sealed was acknowledged
   1  nothing was read, or something is missing
  64  wrong usage
  other: what a part could not do, as its own help says`,
  commands: {
    run: async () => (await import("./demo-run.ts")).demoRun,
    simulate: async () => (await import("./demo-simulate.ts")).demoSimulate,
    "simulate lora": async () => (await import("./demo-simulate-lora.ts")).demoSimulateLora,
    "simulate modbus": async () => (await import("./demo-simulate-modbus.ts")).demoSimulateModbus,
  },
};

const args = process.argv.slice(2);
const isFlag = args[0]?.startsWith("--") && args[0] !== "--help" && args[0] !== "--version";
// Without a command it is the demo: `npm start`, `npm start -- --for 20`.
void runProgram(program, args.length === 0 || isFlag ? ["run", ...args] : args);
