/** ecp-demo simulate: a simulated meter for whoever wants to read one: on a pty, over Modbus TCP, with faults on demand. */
import { NotASymlink } from "../simulator/pty.ts";
import { runSimulatedMeter } from "../simulator/simulated-meter.ts";
import type { SlaveFault } from "../simulator/slave-fault.ts";
import { type Command, CommandError, exit, parseCommand, systemCode, usageError } from "./command.ts";

const faultHelp = "silent, wrong-unit, bad-crc, garbage, noise-before, exception:CODE, late:MS, not-a-number:ADDRESS";

export const demoSimulate: Command = {
  summary: "a simulated Eastron SDM630 on a pty or over Modbus TCP",
  usage: `Usage: ecp-demo simulate [--link PATH] [--tcp HOST:PORT] [--unit N] [--seed N] [--baud N] [--fault FAULT]
                         [--json] [--exit-with-parent]

Makes a pty and prints its path, or makes --link a symlink to it; with --tcp it serves Modbus TCP as well (port 0: any).
--seed chooses the house (load curve, solar), --baud the pace of the answers (9600). Runs until SIGTERM or SIGINT.
--fault: every answer from now on: ${faultHelp}`,

  async run(args) {
    const { values } = parseCommand(
      "ecp-demo simulate",
      args,
      {
        link: { type: "string" },
        tcp: { type: "string" },
        unit: { type: "string", default: "1" },
        seed: { type: "string", default: "1" },
        baud: { type: "string", default: "9600" },
        fault: { type: "string" },
        json: { type: "boolean", default: false },
        "exit-with-parent": { type: "boolean", default: false },
      },
      [],
    );
    const tcp = values.tcp === undefined ? undefined : endpoint(values.tcp);
    const fault = values.fault === undefined ? undefined : faultOf(values.fault);
    const meter = await runSimulatedMeter({
      ...(values.link !== undefined && { link: values.link }),
      ...(tcp && { tcp }),
      unit: integer("unit", values.unit, 1, 247),
      seed: integer("seed", values.seed, 0, 1_000_000),
      baud: integer("baud", values.baud, 300, 115_200),
    }).catch((error: Error & { syscall?: string }) => {
      const ofLink = error instanceof NotASymlink || (systemCode(error) !== undefined && error.syscall === "symlink");
      throw values.link !== undefined && ofLink ? noLink(values.link, error) : error;
    });
    meter.setFault(fault);
    const event = { event: "started", pid: process.pid, path: meter.path, address: meter.address, link: values.link };
    const places = [meter.path, meter.address && `Modbus TCP ${meter.address}`].filter((place) => place !== undefined);
    process.stdout.write(
      values.json
        ? `${JSON.stringify(event)}\n`
        : `simulated SDM630, unit ${values.unit}: ${places.join(", ")}; Ctrl-C ends\n`,
    );
    await new Promise<void>((resolve) => {
      process.once("SIGTERM", resolve);
      process.once("SIGINT", resolve);
      process.stdout.on("error", () => resolve());
      if (values["exit-with-parent"]) process.stdin.resume().once("end", resolve).once("close", resolve);
    });
    await meter.close();
    process.stdin.destroy();
    return exit.ok;
  },
};

function noLink(link: string, error: Error): CommandError {
  return new CommandError(exit.cannotCreate, {
    expected: "a path that is free, or a symlink that may be replaced",
    got: error instanceof NotASymlink ? "something else is there; it was left as it is" : error.message,
    where: `--link ${link}`,
    todo: "choose another path",
  });
}

function integer(flag: string, text: string, min: number, max: number): number {
  if (/^\d{1,7}$/.test(text) && Number(text) >= min && Number(text) <= max) return Number(text);
  throw usageError("ecp-demo simulate", `--${flag} ${text}; an integer from ${min} to ${max} was expected`);
}

function endpoint(text: string): { host: string; port: number } {
  const match = /^(.*):(\d{1,5})$/.exec(text);
  if (!match || Number(match[2]) > 65_535)
    throw usageError("ecp-demo simulate", `--tcp ${text}; HOST:PORT was expected`);
  return { host: match[1] || "127.0.0.1", port: Number(match[2]) };
}

function faultOf(text: string): SlaveFault {
  const [kind = "", parameter = ""] = text.split(":");
  const number = (max: number): number => integer("fault", parameter, 0, max);
  switch (kind) {
    case "silent":
    case "garbage":
      return { kind };
    case "wrong-unit":
      return { kind: "wrong unit" };
    case "bad-crc":
      return { kind: "bad crc" };
    case "noise-before":
      return { kind: "noise before" };
    case "exception":
      return { kind, code: number(255) };
    case "late":
      return { kind, byMs: number(60_000) };
    case "not-a-number":
      return { kind: "not a number", address: number(65_535) };
    default:
      throw usageError("ecp-demo simulate", `--fault ${text}; one of ${faultHelp} was expected`);
  }
}
