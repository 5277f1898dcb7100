/** The demo's live table in a terminal; plain lines where there is none. */
import { decimalText, quantityOfName } from "../protocol/quantity.ts";
import { type StatusLetter, statusSentences } from "../protocol/reading-status.ts";
import type { DemoSummary, DemoTally, MeterView } from "./demo-tally.ts";

export interface PartView {
  readonly name: string;
  readonly address: string;
  pid: number | undefined;
  starts: number;
}

const redrawMs = 500;
const plainLineMs = 5_000;
const logLinesMax = 4;
const titles: Readonly<Record<string, string>> = {
  simulator: "meter (simulated)",
  node: "full node, broker",
  wallet: "wallet",
  agent: "agent",
};

export class DemoView {
  readonly #tally: DemoTally;
  readonly #parts: () => readonly PartView[];
  readonly #startedAt = Date.now();
  #timer: NodeJS.Timeout | undefined;
  #drawn = 0;
  #log: string[] = [];

  constructor(tally: DemoTally, parts: () => readonly PartView[]) {
    this.#tally = tally;
    this.#parts = parts;
  }

  start(): void {
    const live = process.stdout.isTTY === true;
    if (live) process.stdout.write("\x1b[?25l"); // no cursor while the table is drawn again and again
    this.#timer = setInterval(() => (live ? this.#draw() : this.#plain()), live ? redrawMs : plainLineMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    if (process.stdout.isTTY !== true) return;
    this.#draw();
    process.stdout.write("\x1b[?25h");
  }

  /** A line of a part's log; warnings and errors are shown below the table. */
  log(part: string, line: string): void {
    const { text, level } = plainText(line);
    if (level === "info") return;
    this.#log = [...this.#log, `${part}: ${text}`].slice(-logLinesMax);
    if (process.stdout.isTTY !== true) process.stdout.write(`${part}: ${text}\n`);
  }

  #plain(): void {
    const { sealed, acknowledged, waiting } = this.#tally;
    const powers = [...this.#tally.meters.values()].map((meter) => `${meter.name} ${meter.status} ${powerText(meter)}`);
    process.stdout.write(
      `${powers.join("  ") || "no reading yet"}  sealed ${sealed}  acknowledged ${acknowledged}  waiting ${waiting}\n`,
    );
  }

  #draw(): void {
    const width = Math.max(40, process.stdout.columns ?? 80);
    const lines = this.lines(width);
    const up = this.#drawn > 0 ? `\x1b[${this.#drawn}A` : "";
    process.stdout.write(`${up}\r\x1b[J${lines.join("\n")}\n`);
    this.#drawn = lines.length;
  }

  /** The table as lines, each at most `width` characters wide (escape sequences aside). */
  lines(width: number): string[] {
    const { sealed, acknowledged, waiting, readings } = this.#tally;
    const cut = (text: string): string => (text.length > width ? `${text.slice(0, width - 1)}…` : text);
    const seconds = Math.round((Date.now() - this.#startedAt) / 1_000);
    const parts = this.#parts().map(({ name, address, pid, starts }) => {
      const state = pid === undefined ? "down, starting again" : `pid ${pid}`;
      const again = starts > 1 ? `, started ${starts} times` : "";
      const line = cut(`  ${(titles[name] ?? name).padEnd(19)}${(state + again).padEnd(26)}${address}`);
      return pid === undefined ? red(line) : line;
    });
    const meters = [...this.#tally.meters.values()].flatMap((meter) => meterLines(meter).map(cut));
    const p50 = this.#tally.receiptMs(0.5);
    const p99 = this.#tally.receiptMs(0.99);
    const receipt = p50 === null ? "no receipt yet" : `to receipt: half within ${p50} ms, 99 % within ${p99} ms`;
    const records = cut(
      `  ${readings} readings   ${sealed} sealed   ${acknowledged} acknowledged   ${waiting} waiting`,
    );
    return [
      bold(cut(`Energy Commons: meter → signed record → full node → receipt   ${seconds} s, Ctrl-C ends`)),
      "",
      ...parts,
      "",
      ...(meters.length > 0 ? meters : ["  no reading yet"]),
      "",
      waiting > 5 ? yellow(records) : records,
      cut(`  ${receipt}`),
      ...(this.#log.length > 0 ? ["", ...this.#log.map((line) => dim(cut(`  ${line}`)))] : []),
    ];
  }

  /** What a person is told at the end. */
  static ending(summary: DemoSummary): string {
    const { readings, sealed, acknowledged, missing, refused, receiptP50Ms, receiptP99Ms } = summary;
    const times = receiptP50Ms === null ? "" : `; to the receipt half took ${receiptP50Ms} ms, 99 % ${receiptP99Ms} ms`;
    const verdict =
      missing === 0 && readings > 0
        ? "Everything that was sealed was acknowledged."
        : readings === 0
          ? "Nothing was read."
          : `${missing} sealed records were not acknowledged in time; they are kept, and sent again next time.`;
    return `${readings} readings, ${sealed} records sealed, ${acknowledged} acknowledged, ${refused} refused${times}.\n${verdict}\n`;
  }
}

function meterLines(meter: MeterView): string[] {
  const age = Math.max(0, Math.round(Date.now() / 1_000 - meter.timeS));
  const head = `  ${bold(meter.name)}  ${meter.status === "G" ? green("G good") : red(`${meter.status} ${statusSentences[meter.status as StatusLetter] ?? ""}`)}  record ${meter.sequence}, ${age} s ago`;
  if (Object.keys(meter.values).length === 0) return [head, `    ${meter.detail}`];
  const value = (name: string): string => {
    const quantity = quantityOfName(name);
    const number = meter.values[name];
    if (!quantity || number === undefined) return "–";
    return `${decimalText(number, quantity.display.decimals)} ${quantity.display.unit}`.trim();
  };
  const phases = ["l1", "l2", "l3"].map((phase) => `${value(`voltage-${phase}`)} × ${value(`current-${phase}`)}`);
  return [
    head,
    `    takes ${value("active-power-import").padStart(10)}   has taken ${value("active-energy-import").padStart(14)}   ${value("frequency")}`,
    `    feeds ${value("active-power-export").padStart(10)}   has fed   ${value("active-energy-export").padStart(14)}   power factor ${value("power-factor")}`,
    `    ${phases.map((text, i) => `L${i + 1} ${text}`).join("   ")}`,
  ];
}

function powerText(meter: MeterView): string {
  const [taken, fed] = [meter.values["active-power-import"], meter.values["active-power-export"]];
  return taken === undefined || fed === undefined ? meter.detail : `${taken - fed} W`;
}

/** A log line's message, from JSON where it is that. */
function plainText(line: string): { text: string; level: string } {
  try {
    const { level, message, part, time, ...fields } = JSON.parse(line) as Record<string, unknown>;
    const rest = Object.entries(fields).map(([key, value]) => `${key} ${String(value)}`);
    return { text: [String(message), ...rest].join(", "), level: String(level) };
  } catch {
    return { text: line, level: "warn" };
  }
}

const paint = (code: number) => (text: string) =>
  process.stdout.isTTY === true ? `\x1b[${code}m${text}\x1b[0m` : text;
const bold = paint(1);
const dim = paint(2);
const red = paint(31);
const green = paint(32);
const yellow = paint(33);
