#!/usr/bin/env node
/** ecp-node: the full node's program. Each command is a file of its own. */
import { availableParallelism } from "node:os";
import { version } from "../platform/version.ts";
import { type Program, runProgram } from "./command.ts";
import { explainNodeError, nodeExitHelp } from "./node-command.ts";

// Signatures are verified on libuv's thread pool, which reads this when it is first used: with 4 threads on 2 cores it verifies most.
process.env.UV_THREADPOOL_SIZE ??= `${Math.min(Math.max(4, 2 * availableParallelism()), 64)}`;

const program: Program = {
  name: "ecp-node",
  version,
  intro: "takes signed meter records from MQTT, verifies and stores them, and answers with signed receipts",
  commands: {
    init: async () => (await import("./node-init.ts")).nodeInit,
    enrol: async () => (await import("./node-enrol.ts")).nodeEnrol,
    run: async () => (await import("./node-run.ts")).nodeRun,
    devices: async () => (await import("./node-devices.ts")).nodeDevices,
    quarantine: async () => (await import("./node-quarantine.ts")).nodeQuarantine,
    alarms: async () => (await import("./node-alarms.ts")).nodeAlarms,
    "epoch list": async () => (await import("./node-epoch.ts")).nodeEpochList,
    "epoch accept": async () => (await import("./node-epoch.ts")).nodeEpochAccept,
    "epoch reject": async () => (await import("./node-epoch.ts")).nodeEpochReject,
    "lorawan bind": async () => (await import("./node-lorawan.ts")).nodeLorawanBind,
    "lorawan unbind": async () => (await import("./node-lorawan.ts")).nodeLorawanUnbind,
    "lorawan list": async () => (await import("./node-lorawan.ts")).nodeLorawanList,
    import: async () => (await import("./node-import.ts")).nodeImport,
    backup: async () => (await import("./node-backup.ts")).nodeBackup,
    restore: async () => (await import("./node-backup.ts")).nodeRestore,
    readings: async () => (await import("./node-readings.ts")).nodeReadings,
    energy: async () => (await import("./node-energy.ts")).nodeEnergy,
    dump: async () => (await import("./node-dump.ts")).nodeDump,
  },
  exitHelp: nodeExitHelp,
  explain: explainNodeError,
};

void runProgram(program, process.argv.slice(2));
