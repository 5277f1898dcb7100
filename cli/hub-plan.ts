/** ecp plan: which requests a reading takes, and how long they take on the line. Asks no meter. */
import { planBlocks, type RegisterBlock } from "../drivers/modbus/block-plan.ts";
import { type MeterProfile, registersOf } from "../drivers/modbus/profile.ts";
import { createRtuLine, frameGapMs, turnaroundMs } from "../drivers/modbus/rtu-line.ts";
import { createTcpLine } from "../drivers/modbus/tcp-line.ts";
import { quantityOfCode, quantityOfName } from "../protocol/quantity.ts";
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { jsonOption } from "./hub-options.ts";
import { profileNamed } from "./profile-files.ts";
import { formatTable } from "./table.ts";

/** Around the registers of a frame: request 8 bytes, answer 5; on TCP 12 and 9 ("Messaging on TCP/IP" V1.0b §3.1.3). */
const rtuBytes = { request: 8, answer: 5 };
const tcpBytes = { request: 12, answer: 9 };

interface PlannedRequest extends RegisterBlock {
  readonly bytes: number;
  /** With the pause before it; undefined on TCP, where the network decides. */
  readonly ms: number | undefined;
  readonly quantities: readonly string[];
}

export const hubPlan: Command = {
  summary: "show which requests a reading takes, and how long",
  usage: `Usage: ecp plan --profile NAME [--baud N] [--parity none|even|odd] [--stop-bits 1|2] [--quantities A,B …] [--json]
       ecp plan --profile NAME --tcp [--quantities A,B …] [--json]

Asks no meter. A profile is the name of one that is built in (ecp profile list), or the path of a file. Times count the
pause before each request, 10 or 11 bits a character, and ${turnaroundMs} ms for the meter to begin its answer.`,

  async run(args) {
    const options = {
      ...jsonOption,
      profile: { type: "string" },
      baud: { type: "string" },
      parity: { type: "string" },
      "stop-bits": { type: "string", default: "1" },
      tcp: { type: "boolean", default: false },
      quantities: { type: "string" },
    } as const;
    const { values } = parseCommand("ecp plan", args, options, []);
    const profile = profileNamed("ecp plan", values.profile);
    if (profile.kind === "sunspec")
      throw new CommandError(exit.unavailable, {
        expected: "a profile with a table of registers",
        got: `${profile.id}, whose registers are found on the device itself`,
        where: "the command line",
        todo: "ecp profile list",
      });
    const codes = codesOf(profile, values.quantities);
    const baud = numberOf("baud", values.baud ?? `${profile.factory.bauds[0]}`, 300, 230_400);
    const parity = values.parity ?? profile.factory.parities[0];
    if (!["none", "even", "odd"].includes(parity))
      throw usageError("ecp plan", `--parity ${parity}; none, even or odd was expected`);
    const bits = 9 + numberOf("stop-bits", values["stop-bits"], 1, 2) + (parity === "none" ? 0 : 1);
    const line = values.tcp ? undefined : { baud, bits };
    const requests = planOf(profile, codes, line);
    const where = line === undefined ? "Modbus TCP" : `${baud} baud, ${bits} bits a character`;
    process.stdout.write(values.json ? jsonText(profile, where, requests) : tableText(profile, where, requests));
    return exit.ok;
  },
};

function planOf(
  profile: MeterProfile,
  codes: readonly number[],
  line: { baud: number; bits: number } | undefined,
): PlannedRequest[] {
  const openTransport = (): Promise<never> => Promise.reject(new Error("a plan opens no port"));
  const bus =
    line === undefined
      ? createTcpLine({ host: "plan", port: 502 })
      : createRtuLine({ description: "plan", openTransport, baud: line.baud, bitsPerCharacter: line.bits });
  const places = profile.registers
    .filter(({ code }) => codes.includes(code))
    .map((register) => ({ register, span: { ...register, count: registersOf(register.type) } }));
  const blocks = planBlocks(
    places.map(({ span: { functionCode, address, count } }) => ({ functionCode, address, count })),
    { ...profile, requestCostRegisters: bus.requestCostRegisters(profile.gapMs) },
  );
  return blocks.map((block) => {
    const frame = line === undefined ? tcpBytes : rtuBytes;
    const bytes = frame.request + frame.answer + 2 * block.count;
    const inside = places.filter(
      ({ span }) =>
        span.functionCode === block.functionCode &&
        span.address >= block.address &&
        span.address + span.count <= block.address + block.count,
    );
    return {
      ...block,
      bytes,
      ms: line && bytes * characterMs(line) + turnaroundMs + Math.max(profile.gapMs, frameGapMs(line.baud, line.bits)),
      quantities: inside.map(({ register }) => quantityOfCode(register.code)?.name ?? `${register.code}`),
    };
  });
}

function characterMs({ baud, bits }: { baud: number; bits: number }): number {
  return (bits * 1000) / baud;
}

function codesOf(profile: MeterProfile, names: string | undefined): readonly number[] {
  if (names === undefined) return profile.defaultCodes;
  return names.split(",").map((name) => {
    const code = quantityOfName(name.trim())?.code;
    if (code !== undefined && profile.codes.includes(code)) return code;
    const known = profile.codes.map((item) => quantityOfCode(item)?.name ?? "").join(", ");
    throw usageError("ecp plan", `--quantities ${name}; ${profile.id} has ${known}`);
  });
}

function numberOf(flag: string, text: string, min: number, max: number): number {
  if (/^\d{1,6}$/.test(text) && Number(text) >= min && Number(text) <= max) return Number(text);
  throw usageError("ecp plan", `--${flag} ${text}; an integer from ${min} to ${max} was expected`);
}

function totalsOf(requests: readonly PlannedRequest[]): { bytes: number; ms: number | undefined } {
  const ms = requests.reduce<number | undefined>((sum, request) => {
    return sum === undefined || request.ms === undefined ? undefined : sum + request.ms;
  }, 0);
  return { bytes: requests.reduce((sum, { bytes }) => sum + bytes, 0), ms };
}

function placeText({ functionCode, address }: RegisterBlock): string {
  return `${functionCode}:0x${address.toString(16).toUpperCase().padStart(4, "0")}`;
}

function jsonText(profile: MeterProfile, line: string, requests: readonly PlannedRequest[]): string {
  const rounded = (ms: number | undefined): { ms?: number } =>
    ms === undefined ? {} : { ms: Math.round(ms * 10) / 10 };
  const { bytes, ms } = totalsOf(requests);
  return `${JSON.stringify({
    ...{ profile: profile.id, line, requests: requests.length, bytes, ...rounded(ms) },
    plan: requests.map(({ functionCode, address, count, quantities, ...request }) => ({
      ...{
        function: functionCode,
        address,
        registers: count,
        bytes: request.bytes,
        ...rounded(request.ms),
        quantities,
      },
    })),
  })}\n`;
}

function tableText(profile: MeterProfile, line: string, requests: readonly PlannedRequest[]): string {
  const { bytes, ms } = totalsOf(requests);
  const shown = (value: number | undefined): string => (value === undefined ? "" : value.toFixed(1));
  const rows = requests.map((request) => [
    ...[placeText(request), `${request.count}`, `${request.bytes}`, shown(request.ms)],
    request.quantities.join(" "),
  ]);
  const columns = [
    { title: "request" },
    { title: "registers", align: "right" },
    { title: "bytes", align: "right" },
    { title: "ms", align: "right" },
    { title: "quantities" },
  ] as const;
  const total = `${requests.length} requests, ${bytes} bytes${ms === undefined ? "" : `, ${ms.toFixed(1)} ms`}`;
  const modes = profile.modes.length > 0 ? `; settings are read beside it at first, and every 15 minutes` : "";
  return `${profile.id} at ${line}\n${formatTable(columns, rows)}${total}${modes}\n`;
}
