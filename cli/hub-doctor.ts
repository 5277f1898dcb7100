/** ecp doctor: watches a bus while it polls its meters, and says in plain words what is wrong. */
import { resolve } from "node:path";
import type { LineConfiguration } from "../agent/configuration.ts";
import { type Diagnosis, diagnoseLine, type WatchedLine } from "../drivers/modbus/bus-diagnosis.ts";
import { type Command, exit, parseCommand, usageError } from "./command.ts";
import { readHubFile } from "./hub-configuration.ts";
import { type WatchedMeter, watchLine } from "./hub-doctor-watch.ts";
import { configOption, jsonOption } from "./hub-options.ts";
import { profileNamed } from "./profile-files.ts";
import { formatTable } from "./table.ts";

const name = "ecp doctor";
const forSDefault = 20;

interface Patient {
  readonly line: LineConfiguration;
  readonly meters: readonly WatchedMeter[];
}

export const hubDoctor: Command = {
  summary: "watch a bus and say what is wrong with it, in plain words",
  usage: `Usage: ecp doctor [--config hub.yaml] [--line NAME] [--for SECONDS] [--json]
       ecp doctor --serial PATH [--baud N] [--parity none|even|odd] --meter PROFILE@UNIT … [--for SECONDS] [--json]
       ecp doctor --tcp HOST:PORT [--framing tcp|rtu] --meter PROFILE@UNIT … [--for SECONDS] [--json]

Listens, then polls the meters as fast as their profiles allow for ${forSDefault} s (--for), and where answers are missing with longer pauses as
well; where nothing answers, it tries other speeds. It only ever reads. A port that the agent has open is busy: stop 'ecp run' first.
Exit status 0 where the bus is well, 1 where something is wrong, 69 where no port could be used.`,

  async run(args) {
    const { values } = parseCommand(
      name,
      args,
      {
        ...configOption,
        ...jsonOption,
        line: { type: "string" },
        serial: { type: "string" },
        baud: { type: "string", default: "9600" },
        parity: { type: "string", default: "none" },
        tcp: { type: "string" },
        framing: { type: "string", default: "tcp" },
        meter: { type: "string", multiple: true },
        for: { type: "string", default: `${forSDefault}` },
      },
      [],
    );
    const forS = integer("for", values.for, 2, 3_600);
    const direct = values.serial !== undefined || values.tcp !== undefined;
    if (!direct && values.meter !== undefined) throw usageError(name, "--meter without --serial or --tcp");
    const patients = direct ? [directPatient(values)] : configuredPatients(values.config, values.line);
    const interrupted = new AbortController();
    const interrupt = (): void => interrupted.abort();
    process.on("SIGINT", interrupt);
    process.on("SIGTERM", interrupt);
    const lines = patients.length === 1 ? "the line" : `${patients.length} lines side by side`;
    if (!values.json)
      process.stdout.write(`Watching ${lines} for ${forS} s. Ctrl-C ends it, and says what was seen.\n`);
    const stopCountdown = values.json ? () => undefined : countDown(forS);
    const watched = await Promise.all(
      patients.map(async ({ line, meters }) => ({
        line,
        watched: await watchLine(line, meters, forS * 1_000, interrupted.signal),
      })),
    );
    stopCountdown();
    const reports = watched.map((one) => ({ ...one, diagnoses: diagnoseLine(one.watched) }));
    process.stdout.write(values.json ? `${JSON.stringify(reportJson(reports))}\n` : reports.map(reportText).join("\n"));
    const diagnoses = reports.flatMap((report) => report.diagnoses);
    if (diagnoses.every(({ kind }) => kind === "healthy")) return exit.ok;
    const isUnusable = reports.every(
      ({ watched: { failure, units } }) => failure && units.every((u) => u.busy.requests === 0),
    );
    return isUnusable ? exit.unavailable : exit.failed;
  },
};

interface Report {
  readonly line: LineConfiguration;
  readonly watched: WatchedLine;
  readonly diagnoses: readonly Diagnosis[];
}

function reportText({ line, watched, diagnoses }: Report): string {
  const columns = [
    { title: "unit", align: "right" },
    { title: "meter" },
    { title: "requests", align: "right" },
    { title: "answers", align: "right" },
    { title: "time-outs", align: "right" },
    { title: "spoilt (CRC)", align: "right" },
    { title: "of others", align: "right" },
    { title: "exceptions", align: "right" },
    { title: "late", align: "right" },
    { title: "median ms", align: "right" },
    { title: "longest ms", align: "right" },
  ] as const;
  const rows = figuresOf(watched).map((unit) => [
    `${unit.unit}`,
    unit.name,
    ...[unit.requests, unit.answers, unit.timeouts, unit.crcErrors, unit.wrongReplies, unit.exceptions, unit.late].map(
      String,
    ),
    unit.medianMs === undefined ? "" : `${unit.medianMs}`,
    unit.longestMs === undefined ? "" : `${unit.longestMs}`,
  ]);
  const table =
    rows.length > 0 && watched.units.some((unit) => unit.busy.requests > 0) ? formatTable(columns, rows) : "";
  const words = diagnoses.map(({ sentence, todo }) => `${sentence}.\n${todo === "" ? "" : `  to do: ${todo}\n`}`);
  return `${line.name}: ${watched.description}\n${table}\n${words.join("")}`;
}

function figuresOf({ units }: WatchedLine) {
  return units.map(({ unit, name: meter, busy, calm, latency }) => {
    const sum = (key: keyof typeof busy): number => busy[key] + (calm?.[key] ?? 0);
    return {
      unit,
      name: meter,
      requests: sum("requests"),
      answers: sum("ok"),
      timeouts: sum("timeouts"),
      crcErrors: sum("crcErrors"),
      wrongReplies: sum("wrongReplies"),
      exceptions: sum("exceptions"),
      late: sum("late"),
      ...(latency && { medianMs: Math.round(latency.medianMs), longestMs: Math.round(latency.maxMs) }),
    };
  });
}

function reportJson(reports: readonly Report[]): object {
  return {
    healthy: reports.every(({ diagnoses }) => diagnoses.every(({ kind }) => kind === "healthy")),
    lines: reports.map(({ line, watched, diagnoses }) => ({
      line: line.name,
      description: watched.description,
      uninvited: watched.uninvited,
      units: figuresOf(watched),
      diagnoses,
    })),
  };
}

/** Seconds left, on a terminal. Gives what ends it. */
function countDown(forS: number): () => void {
  if (process.stderr.isTTY !== true) return () => undefined;
  const endMs = performance.now() + forS * 1_000;
  const timer = setInterval(() => {
    const leftS = Math.max(0, Math.ceil((endMs - performance.now()) / 1_000));
    process.stderr.write(`\r\x1b[K${leftS > 0 ? `${leftS} s left` : "finishing"}`);
  }, 500);
  return () => {
    clearInterval(timer);
    process.stderr.write("\r\x1b[K");
  };
}

function configuredPatients(config: string, only: string | undefined): Patient[] {
  const { configuration, profileOf } = readHubFile(config);
  const lines = configuration.lines.filter((line) => only === undefined || line.name === only);
  if (lines.length === 0)
    throw usageError(name, `--line ${only}; the lines are ${configuration.lines.map((line) => line.name).join(", ")}`);
  const patients = lines.map((line) => ({
    line,
    meters: configuration.meters
      .filter((meter) => meter.line === line.name)
      .map(({ name: meter, unit, profile }) => ({
        name: meter,
        unit,
        profile: profileOf(profile),
      })),
  }));
  const used = patients.filter(({ meters }) => meters.length > 0);
  if (used.length === 0)
    throw usageError(name, `no meter is configured on ${only === undefined ? "any line" : only}; see 'ecp scan'`);
  return used;
}

function directPatient(values: {
  serial?: string | undefined;
  tcp?: string | undefined;
  framing: string;
  baud: string;
  parity: string;
  meter?: string[] | undefined;
}): Patient {
  if (values.serial !== undefined && values.tcp !== undefined) throw usageError(name, "--serial and --tcp together");
  const meters = (values.meter ?? []).map(meterOf);
  if (meters.length === 0) throw usageError(name, "no --meter PROFILE@UNIT; 'ecp scan' finds what is there");
  if (values.tcp !== undefined) {
    const match = /^(.+?)(?::(\d{1,5}))?$/.exec(values.tcp);
    const port = Number(match?.[2] ?? 502);
    if (!match || port < 1 || port > 65_535) throw usageError(name, `--tcp ${values.tcp}; HOST:PORT was expected`);
    const { framing } = values;
    if (framing !== "tcp" && framing !== "rtu") throw usageError(name, `--framing ${framing}; tcp or rtu was expected`);
    const tcp = { host: (match[1] ?? "").replace(/^\[|\]$/g, ""), port, framing } as const;
    return { line: { name: "direct", tcp }, meters };
  }
  const { parity } = values;
  if (parity !== "none" && parity !== "even" && parity !== "odd")
    throw usageError(name, `--parity ${parity}; none, even or odd was expected`);
  const serial = {
    path: resolve(values.serial ?? ""),
    baud: integer("baud", values.baud, 300, 230_400),
    parity,
  } as const;
  return { line: { name: "direct", serial }, meters };
}

function meterOf(text: string): WatchedMeter {
  const [, id, unit] = /^(.+)@(\d{1,3})$/.exec(text) ?? [];
  if (id === undefined) throw usageError(name, `--meter ${text}; PROFILE@UNIT was expected, such as eastron-sdm630@1`);
  const profile = profileNamed(name, id, "meter");
  return {
    name: `${profile.id.slice(profile.id.indexOf("-") + 1)}-${unit}`,
    unit: integer("meter", unit ?? "", 1, 247),
    profile,
  };
}

function integer(flag: string, text: string, min: number, max: number): number {
  if (/^\d{1,6}$/.test(text) && Number(text) >= min && Number(text) <= max) return Number(text);
  throw usageError(name, `--${flag} ${text}; an integer from ${min} to ${max} was expected`);
}
