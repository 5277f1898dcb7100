#!/usr/bin/env node
/** ecp-node: the full node's program. Each command is a file of its own. */
import packageJson from "../package.json" with { type: "json" };
import { exit, exitHelp, explain, formatError, type NodeCommand, usageError } from "./node-command.ts";

/** Loaded when used: `devices` needs no broker. */
const commands: Record<string, () => Promise<NodeCommand>> = {
  init: async () => (await import("./node-init.ts")).nodeInit,
  enrol: async () => (await import("./node-enrol.ts")).nodeEnrol,
  run: async () => (await import("./node-run.ts")).nodeRun,
  devices: async () => (await import("./node-devices.ts")).nodeDevices,
  readings: async () => (await import("./node-readings.ts")).nodeReadings,
};

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === "--version") return print(`ecp-node ${packageJson.version}\n`);
  if (name === undefined) throw usageError("", "no command");
  if (name === "help" || name === "--help" || name === "-h") return print(await help(rest[0]));
  const load = commands[name];
  if (load === undefined || !Object.hasOwn(commands, name)) throw usageError("", `the command ${name}`);
  if (rest.includes("--help") || rest.includes("-h")) return print(await help(name));
  return await (await load()).run(rest);
}

async function help(name: string | undefined): Promise<string> {
  if (name !== undefined) {
    const load = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (load === undefined) throw usageError("", `the command ${name}`);
    return `${(await load()).usage}\n\n${exitHelp}\n`;
  }
  const lines = await Promise.all(
    Object.entries(commands).map(async ([command, load]) => `  ${command.padEnd(10)}${(await load()).summary}\n`),
  );
  return (
    "ecp-node: takes signed meter records from MQTT, verifies and stores them, and answers with signed receipts\n\n" +
    `Usage: ecp-node COMMAND …\n\n${lines.join("")}` +
    `  help       ecp-node help COMMAND says more\n  --version  the version of this program\n\n${exitHelp}\n`
  );
}

function print(text: string): number {
  process.stdout.write(text);
  return exit.ok;
}

main(process.argv.slice(2)).then(
  (status) => {
    process.exitCode = status;
  },
  (error: unknown) => {
    const explained = explain(error);
    // A programmer's error: nothing that its user could mend, so all of it is shown.
    if (explained === undefined) throw error;
    process.stderr.write(formatError(explained.text));
    process.exitCode = explained.status;
  },
);
