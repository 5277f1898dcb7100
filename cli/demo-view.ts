/** The demo's live table in a terminal; plain lines where there is none. */
import { decimalText, quantityOfName } from "../protocol/quantity.ts";
import { type StatusLetter, statusSentences } from "../protocol/reading-status.ts";
import type { DemoSummary, DemoTally, LoraView, MeterView } from "./demo-tally.ts";

export interface PartView {
  readonly name: string;
  readonly address: string;
  pid: number | undefined;
  starts: number;
}

const redrawMs = 500;
const plainLineMs = 5_000;
const logLinesMax = 4;
/** From this width on the phases stand beside the totals. */
const wideColumns = 77;
const titles: Readonly<Record<string, string>> = {
  simulator: "meter (simulated)",
  radio: "radio (simulated)",
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
    if (live) {
      process.stdout.write("\x1b[?25l"); // no cursor while the table is drawn again and again
      process.once("exit", showCursor);
      process.stdout.on("resize", this.#clear);
      this.#draw();
    }
    this.#timer = setInterval(() => (live ? this.#draw() : this.#plain()), live ? redrawMs : plainLineMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    if (process.stdout.isTTY !== true) return;
    process.stdout.off("resize", this.#clear);
    this.#draw();
    showCursor();
  }

  /** After a resize nobody knows which lines the terminal has wrapped. */
  readonly #clear = (): void => {
    process.stdout.write("\x1b[2J\x1b[H");
    this.#drawn = 0;
  };

  /** A line of a part's log; warnings and errors are shown below the table. */
  log(part: string, line: string): void {
    const { text, level } = plainText(line);
    if (level === "info") return;
    const shown = `${part}: ${printable(text)}`;
    this.#log = [...this.#log, shown].slice(-logLinesMax);
    if (process.stdout.isTTY !== true) process.stdout.write(`${shown}\n`);
  }

  #plain(): void {
    const { sealed, acknowledged, waiting, lora } = this.#tally;
    const air = lora ? `  frames ${lora.frames}  airtime ${(lora.airtimeMs / 1_000).toFixed(2)} s` : "";
    const powers = [...this.#tally.meters.values()].map((meter) => `${meter.name} ${meter.status} ${powerText(meter)}`);
    process.stdout.write(
      `${powers.join("  ") || "no reading yet"}  sealed ${sealed}  acknowledged ${acknowledged}  waiting ${waiting}${air}\n`,
    );
  }

  #draw(): void {
    // The last column stays free: some terminals wrap when it is written to.
    const lines = this.lines((process.stdout.columns ?? 80) - 1).slice(0, Math.max(1, (process.stdout.rows ?? 24) - 1));
    const up = this.#drawn > 0 ? `\x1b[${this.#drawn}A` : "";
    process.stdout.write(`${up}\r\x1b[J${lines.join("\n")}\n`);
    this.#drawn = lines.length;
  }

  /** The table as lines, each at most `width` characters wide (escape sequences aside). */
  lines(width: number): string[] {
    const { sealed, acknowledged, waiting, readings } = this.#tally;
    const number = (value: number): string => `${value}`.padEnd(5);
    const [p50, p99] = [this.#tally.receiptMs(0.5), this.#tally.receiptMs(0.99)];
    const receipt =
      p50 === null || p99 === null
        ? "no receipt yet"
        : `to the receipt: half within ${p50.toFixed(1)} ms, 99 % within ${p99.toFixed(1)} ms`;
    const records = cut(
      `  read ${number(readings)}  sealed ${number(sealed)}  acknowledged ${number(acknowledged)}  waiting ${waiting}`,
      width,
    );
    const meters = [...this.#tally.meters.values()];
    return [
      bold(cut(this.#title(width), width)),
      "",
      ...this.#parts().map((part) => partLine(part, width)),
      "",
      ...(meters.length > 0 ? meters.flatMap((meter) => meterLines(meter, width)) : nothingYet(width)),
      "",
      waiting > 5 ? yellow(records) : records,
      cut(`  ${receipt}`, width),
      ...(this.#parts().some(({ name }) => name === "radio") ? ["", ...loraLines(this.#tally.lora, width)] : []),
      ...(this.#log.length > 0 ? ["", ...this.#log.map((line) => dim(cut(`  ${line}`, width)))] : []),
    ];
  }

  #title(width: number): string {
    const seconds = Math.round((Date.now() - this.#startedAt) / 1_000);
    const right = `${Math.floor(seconds / 60)}:${`${seconds % 60}`.padStart(2, "0")}  Ctrl-C ends`;
    const left =
      width >= wideColumns
        ? "Energy Commons: meter → signed record → full node → receipt"
        : "Energy Commons: meter to receipt";
    return left.length + right.length < width ? left + right.padStart(width - left.length) : left;
  }

  /** What a person is told at the end. */
  static ending(summary: DemoSummary): string {
    const { readings, sealed, acknowledged, missing, refused, receiptP50Ms, receiptP99Ms } = summary;
    const { frames, airtimeMs = 0, worstHourShare = null } = summary;
    const share =
      worstHourShare === null ? "" : `, at most ${(100 * worstHourShare).toFixed(1)} % of what an hour allows`;
    const air =
      frames === undefined ? "" : `${frames} LoRaWAN frames, ${(airtimeMs / 1_000).toFixed(2)} s on the air${share}.\n`;
    const times = receiptP50Ms === null ? "" : `; to the receipt half took ${receiptP50Ms} ms, 99 % ${receiptP99Ms} ms`;
    const verdict =
      missing === 0 && readings > 0
        ? "Everything that was sealed was acknowledged."
        : readings === 0
          ? "Nothing was read."
          : `${missing} sealed records were not acknowledged in time; they are kept, and sent again next time.`;
    return `${readings} readings, ${sealed} records sealed, ${acknowledged} acknowledged, ${refused} refused${times}.\n${air}${verdict}\n`;
  }
}

/** By the radio's own meter, not by what the agent believes. */
function loraLines(lora: LoraView | undefined, width: number): string[] {
  const { condition = "", detail = "", frames = 0, airtimeMs = 0, lost = 0, last } = lora ?? {};
  const air = `  frames ${`${frames}`.padEnd(5)}  lost ${`${lost}`.padEnd(4)}  airtime ${(airtimeMs / 1_000).toFixed(2)} s`;
  const hour = last ? `, in the last hour ${(last.hourMs / 1_000).toFixed(2)} s` : "";
  const share = last?.worstHourShare ?? undefined;
  const budget =
    share === undefined
      ? ""
      : `  budget: ${(100 * share).toFixed(1)} % of what an hour allows, in the fullest sub-band`;
  const frame = last ? `; last frame ${last.phyBytes} bytes at SF${last.spreadingFactor}, ${last.airtimeMs} ms` : "";
  const state = printable(`  LoRaWAN ${condition || "starting"}${detail ? `: ${detail}` : ""}${frame}`);
  const isOver = share !== undefined && share > 1;
  return [cut(air + hour, width), (isOver ? red : (text: string) => text)(cut(budget, width)), cut(state, width)];
}

function cut(text: string, width: number): string {
  return text.length > width ? `${text.slice(0, width - 1)}…` : text;
}

function partLine({ name, address, pid, starts }: PartView, width: number): string {
  const state = pid === undefined ? "down, starting again" : `pid ${pid}${starts > 1 ? `, start ${starts}` : ""}`;
  const head = `  ${(titles[name] ?? name).padEnd(19)}${state.padEnd(22)}`;
  const room = width - head.length;
  // Of an address the end says most.
  const shown = address.length > room ? `…${address.slice(address.length - Math.max(0, room - 1))}` : address;
  const line = cut(head + shown, width);
  return pid === undefined ? red(line) : line;
}

/** Lines of a meter's block below its head: the same whatever is known, so that nothing below it jumps. */
const bodyLines = (width: number): number => (width >= wideColumns ? 3 : 6);

function nothingYet(width: number): string[] {
  return ["  no reading yet", ...new Array<string>(bodyLines(width)).fill("")];
}

function meterLines(meter: MeterView, width: number): string[] {
  const age = Math.max(0, Math.round(Date.now() / 1_000 - meter.timeS));
  const value = (name: string, columns: number): string => {
    const quantity = quantityOfName(name);
    const number = meter.values[name];
    const text =
      !quantity || number === undefined
        ? "–"
        : `${decimalText(number, quantity.display.decimals)} ${quantity.display.unit}`.trim();
    return text.padStart(columns);
  };
  const totals = [
    `    from the grid  ${value("active-power-import", 11)}  ${value("active-energy-import", 15)}`,
    `    to the grid    ${value("active-power-export", 11)}  ${value("active-energy-export", 15)}`,
    `    frequency      ${value("frequency", 11)}  ${`power factor ${value("power-factor", 0)}`.padStart(19)}`,
  ];
  const phases = ["l1", "l2", "l3"].map(
    (phase) => `${phase.toUpperCase()} ${value(`voltage-${phase}`, 10)} ${value(`current-${phase}`, 9)}`,
  );
  const body =
    bodyLines(width) === totals.length
      ? totals.map((text, i) => `${text.padEnd(54)}${phases[i]}`)
      : [...totals, ...phases.map((text) => `    ${text}`)];
  const state =
    meter.status === "G" ? "good" : `${meter.status} ${statusSentences[meter.status as StatusLetter] ?? ""}`;
  const [name, record] = [`  ${meter.name}  `, `  sequence ${meter.sequence}, ${age} s ago`];
  const shown = cut(state, Math.max(1, width - name.length - record.length));
  const head = bold(name) + (meter.status === "G" ? green(shown) : red(shown)) + record;
  if (Object.keys(meter.values).length > 0) return [head, ...body.map((text) => cut(text, width))];
  return [head, ...body.map((_, i) => (i === 0 ? cut(`    ${printable(meter.detail)}`, width) : ""))];
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

/** What a part says must move no cursor. */
function printable(text: string): string {
  return text.replace(/\p{Cc}+/gu, " ");
}

function showCursor(): void {
  process.stdout.write("\x1b[?25h");
}

const paint = (code: number) => (text: string) =>
  process.stdout.isTTY === true ? `\x1b[${code}m${text}\x1b[0m` : text;
const bold = paint(1);
const dim = paint(2);
const red = paint(31);
const green = paint(32);
const yellow = paint(33);
