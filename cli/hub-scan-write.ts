/** What ecp scan found as lines of hub.yaml: to paste, or put in where nothing that is there is touched. */
import { realpathSync, statSync } from "node:fs";
import { isMap, isScalar, isSeq, type Node, parseDocument, type YAMLMap } from "yaml";
import type { LineConfiguration, MeterConfiguration } from "../agent/configuration.ts";
import type { ModemSearchResult } from "../drivers/lora/modem-search.ts";
import type { SearchResult } from "../drivers/modbus/meter-search.ts";
import type { LineSettings } from "../drivers/modbus/meter-search-plan.ts";
import { describeFraming } from "../drivers/serial/serial-settings.ts";
import { writeFileDurably } from "../platform/durable-file.ts";
import { CommandError, exit } from "./command.ts";
import { hubOf, readHubFile } from "./hub-configuration.ts";
import { readInput } from "./input-file.ts";

export interface TcpPlace {
  readonly host: string;
  readonly port: number;
  /** RTU frames over TCP; Modbus TCP where absent. */
  readonly framing?: "rtu";
}

/** A port that was searched, as hub.yaml names it, and what was found there. */
export interface ScannedLine {
  readonly place: { readonly path: string } | TcpPlace;
  readonly result: SearchResult;
  /** What was found where no meter answered, or where none was looked for. */
  readonly modem?: ModemSearchResult;
  readonly isForModems?: boolean;
}

interface NewMeter {
  readonly name: string;
  readonly index: number;
  readonly line: string;
  readonly unit: number;
  readonly profile: string;
}

interface NewLine {
  readonly name: string;
  readonly place: ScannedLine["place"];
  readonly settings: LineSettings | undefined;
}

interface Additions {
  readonly lines: readonly NewLine[];
  readonly meters: readonly NewMeter[];
  /** Lines that stand at another setting than the one at which their meters answer. */
  readonly corrections: readonly { readonly name: string; readonly before: string; readonly settings: LineSettings }[];
  /** What was found and is not added, with the reason. */
  readonly left: readonly string[];
}

export interface Written {
  readonly file: string;
  readonly added: Pick<Additions, "lines" | "meters" | "corrections">;
  readonly left: readonly string[];
}

/** The lines to paste into a hub.yaml that has none of it. */
export function findingsText(lines: readonly ScannedLine[]): string {
  const { lines: newLines, meters, left } = additionsOf({ lines: [], meters: [] }, lines);
  if (meters.length === 0) return left.map((text) => `# ${text}\n`).join("");
  return `lines:\n${newLines.map((line) => lineYaml(line, "  ")).join("")}meters:\n${meters
    .map((meter) => meterYaml(meter, "  ", false))
    .join("")}`;
}

/**
 * Adds what was found to hub.yaml; the new text is checked before a byte is written.
 * All of a line's meters speak at one setting: where they answered at another one than hub.yaml has, that is put right.
 * @throws CommandError where the file is missing or wrong, or cannot take the additions
 */
export function writeFindings(file: string, scanned: readonly ScannedLine[]): Written {
  const { configuration } = readHubFile(file);
  const additions = additionsOf(configuration, scanned);
  const { lines, meters, corrections, left } = additions;
  if (lines.length + meters.length + corrections.length > 0) {
    const before = readInput(file, "a hub's configuration", "ecp init").toString("utf8");
    const after = editedText(before, additions);
    checkText(file, after);
    writeFileDurably(file, after, statSync(file).mode & 0o777);
  }
  return { file, added: { lines, meters, corrections }, left };
}

type Known = { readonly lines: readonly LineConfiguration[]; readonly meters: readonly MeterConfiguration[] };

function additionsOf(known: Known, scanned: readonly ScannedLine[]): Additions {
  const lines: NewLine[] = [];
  const meters: NewMeter[] = [];
  const corrections: Additions["corrections"][number][] = [];
  const left: string[] = [];
  const names = new Set(known.meters.map(({ name }) => name));
  let index = Math.max(-1, ...known.meters.map((meter) => meter.index));
  for (const { place, result } of scanned) {
    const recognised = result.found.filter(({ profile }) => profile !== undefined);
    for (const { unit, profile } of result.found)
      if (!profile) left.push(`unit ${unit} on ${placeText(place)}: no profile fits (docs/adding-a-meter.md)`);
    if (recognised.length === 0) continue;
    const present = known.lines.find((line) => isAt(line, place));
    const lineName = present?.name ?? newLineName(known.lines, lines);
    if (present?.serial && result.settings && !hasSettings(present.serial, result.settings)) {
      corrections.push({ name: lineName, before: describeFraming(present.serial), settings: result.settings });
    }
    if (!present) lines.push({ name: lineName, place, settings: result.settings });
    for (const { unit, profile } of recognised) {
      const id = profile?.id ?? "";
      const there = known.meters.find((meter) => meter.line === lineName && meter.unit === unit);
      if (there) {
        const differs = there.profile === id ? "" : `, as ${there.profile}; it looks like ${id}`;
        left.push(`unit ${unit} on ${lineName} is there already: ${there.name}${differs}`);
        continue;
      }
      index++;
      const name = meterName(id, unit, names);
      names.add(name);
      meters.push({ name, index, line: lineName, unit, profile: id });
    }
    for (const meter of known.meters)
      if (meter.line === lineName && result.end === "ended" && !result.found.some(({ unit }) => unit === meter.unit))
        left.push(`${meter.name} (unit ${meter.unit} on ${lineName}) did not answer: take it out if it is not there`);
  }
  return { lines, meters, corrections, left };
}

export function placeText(place: ScannedLine["place"]): string {
  return "path" in place ? place.path : `${place.host}:${place.port}`;
}

function isAt({ serial, tcp }: LineConfiguration, place: ScannedLine["place"]): boolean {
  if ("path" in place) return serial !== undefined && deviceOf(serial.path) === deviceOf(place.path);
  return tcp !== undefined && tcp.host === place.host && tcp.port === place.port;
}

/** Two names may lead to one device. */
function deviceOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

function hasSettings(serial: NonNullable<LineConfiguration["serial"]>, { baud, parity }: LineSettings): boolean {
  return serial.baud === baud && (serial.parity ?? "none") === parity;
}

/** `main`, then `line-2`, `line-3` … */
function newLineName(known: readonly LineConfiguration[], added: readonly NewLine[]): string {
  const taken = new Set([...known, ...added].map(({ name }) => name));
  for (let number = 1; ; number++) {
    const name = number === 1 ? "main" : `line-${number}`;
    if (!taken.has(name)) return name;
  }
}

/** `sdm630-1`: the model's name and the unit; with another number behind it where that is taken. */
function meterName(profile: string, unit: number, taken: ReadonlySet<string>): string {
  const model = profile.slice(profile.indexOf("-") + 1).slice(0, 24);
  for (let number = 1; ; number++) {
    const name = number === 1 ? `${model}-${unit}` : `${model}-${unit}-${number}`;
    if (!taken.has(name)) return name;
  }
}

function lineYaml({ name, place, settings }: NewLine, indent: string): string {
  const wire =
    "path" in place
      ? `serial: { path: ${JSON.stringify(place.path)}, baud: ${settings?.baud ?? 9600}, parity: ${settings?.parity ?? "none"} }`
      : `tcp: { host: ${JSON.stringify(place.host)}, port: ${place.port}${place.framing ? `, framing: ${place.framing}` : ""} }`;
  return `${indent}- name: ${name}\n${indent}  ${wire}\n`;
}

function meterYaml({ name, index, line, unit, profile }: NewMeter, indent: string, withIndex: boolean): string {
  const number = withIndex ? `${indent}  index: ${index}\n` : "";
  return `${indent}- name: ${name}\n${number}${indent}  line: ${line}\n${indent}  unit: ${unit}\n${indent}  profile: ${profile}\n`;
}

interface Edit {
  readonly from: number;
  readonly to: number;
  readonly text: string;
}

/** The file with the additions, every other byte as it was; where the lists are written in brackets, they are written anew. */
function editedText(text: string, additions: Additions): string {
  const document = parseDocument(text);
  const edits: Edit[] = [];
  const lists = { lines: additions.lines.length, meters: additions.meters.length };
  const inBrackets = (["lines", "meters"] as const).some((key) => {
    const list = document.get(key);
    return lists[key] > 0 && !(isSeq(list) && list.flow !== true && list.items.length > 0);
  });
  if (inBrackets) {
    for (const { name, place, settings } of additions.lines) {
      const serial = settings && { baud: settings.baud, parity: settings.parity };
      const wire = "path" in place ? { serial: { path: place.path, ...serial } } : { tcp: place };
      document.addIn(["lines"], document.createNode({ name, ...wire }));
    }
    for (const meter of additions.meters) document.addIn(["meters"], document.createNode(meter));
    return editedText(document.toString({ lineWidth: 0 }), { ...additions, lines: [], meters: [] });
  }
  for (const key of ["lines", "meters"] as const) {
    if (lists[key] === 0) continue;
    const { at, indent } = endOfList(text, document.get(key) as { items: Node[] });
    const added =
      key === "lines"
        ? additions.lines.map((line) => lineYaml(line, indent))
        : additions.meters.map((meter) => meterYaml(meter, indent, true));
    const before = text[at - 1] === "\n" ? "" : "\n";
    edits.push({ from: at, to: at, text: before + added.join("") });
  }
  for (const { name, settings } of additions.corrections)
    edits.push(...correctionEdits(text, document.get("lines"), name, settings));
  // From the end, so that the places of the others stay what they are.
  return edits
    .sort((a, b) => b.from - a.from)
    .reduce((all, edit) => all.slice(0, edit.from) + edit.text + all.slice(edit.to), text);
}

/** Behind the last item of a list, and behind the comments that are indented as it is. */
function endOfList(text: string, list: { items: Node[] }): { at: number; indent: string } {
  const first = list.items[0]?.range?.[0] ?? 0;
  const dash = text.lastIndexOf("-", first);
  const column = dash - (text.lastIndexOf("\n", dash) + 1);
  let at = list.items.at(-1)?.range?.[1] ?? text.length;
  if (text[at - 1] !== "\n") at = lineEnd(text, at);
  for (;;) {
    const end = lineEnd(text, at);
    const next = text.slice(at, end);
    if (end === at || !/^ *#/.test(next) || next.indexOf("#") <= column) break;
    at = end;
  }
  return { at, indent: " ".repeat(column) };
}

/** The place behind the line break that ends the line of `at`. */
function lineEnd(text: string, at: number): number {
  const end = text.indexOf("\n", at);
  return end < 0 ? text.length : end + 1;
}

/** Speed and parity of a line, in place; a parity that was not written comes behind the speed. */
function correctionEdits(text: string, lines: unknown, name: string, settings: LineSettings): Edit[] {
  const line = isSeq(lines) ? lines.items.find((item) => isMap(item) && item.get("name") === name) : undefined;
  const serial = isMap(line) ? line.get("serial") : undefined;
  if (!isMap(serial)) return [];
  const baud = rangeOf(serial, "baud");
  const parity = rangeOf(serial, "parity");
  if (baud === undefined) return [];
  const edits = [{ from: baud[0], to: baud[1], text: `${settings.baud}` }];
  if (parity) return [...edits, { from: parity[0], to: parity[1], text: settings.parity }];
  const lineStart = text.lastIndexOf("\n", baud[0]) + 1;
  const indent = /^ */.exec(text.slice(lineStart))?.[0] ?? "";
  const behind = serial.flow === true ? ", " : `\n${indent}`;
  return [{ from: baud[0], to: baud[1], text: `${settings.baud}${behind}parity: ${settings.parity}` }];
}

function rangeOf(map: YAMLMap, key: string): readonly [number, number] | undefined {
  const node = map.get(key, true);
  return isScalar(node) && node.range ? [node.range[0], node.range[1]] : undefined;
}

/** The new text as `ecp config check` sees it: what cannot be taken is not written. */
function checkText(file: string, text: string): void {
  try {
    hubOf(file, text);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const { expected, got } = error.text;
    throw new CommandError(exit.badConfiguration, {
      expected,
      got,
      where: `${file}, as it would be with what was found`,
      todo: "nothing was written; put the lines in by hand (ecp scan without --write shows them)",
    });
  }
}
