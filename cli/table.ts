/** Plain text tables: columns aligned, numbers to the right, nothing cut. */

/** Of the lines that continue another one. */
const indent = "    ";

export interface Column {
  readonly title: string;
  readonly align?: "right";
}

/** Characters that fit on a line of the terminal; where there is none, lines are as long as they are. */
export function terminalColumns(): number {
  return process.stdout.columns ?? Number.POSITIVE_INFINITY;
}

/** A table. Where it is wider than `width`, each row goes on below, indented, at the first column that does not fit. */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  width: number = Number.POSITIVE_INFINITY,
): string {
  const widths = columns.map(({ title }, i) => Math.max(title.length, ...rows.map((row) => (row[i] ?? "").length)));
  const groups = columnGroups(widths, width);
  const cell = (cells: readonly string[], i: number): string => {
    const text = cells[i] ?? "";
    return columns[i]?.align === "right" ? text.padStart(widths[i] ?? 0) : text.padEnd(widths[i] ?? 0);
  };
  const line = (cells: readonly string[]) =>
    groups
      .map((group) =>
        group
          .map((i) => cell(cells, i))
          .join("  ")
          .trimEnd(),
      )
      .filter((text, i) => i === 0 || text !== "")
      .join(`\n${indent}`);
  return [line(columns.map(({ title }) => title)), line(widths.map((width) => "─".repeat(width))), ...rows.map(line)]
    .map((text) => `${text}\n`)
    .join("");
}

/** Which columns share a line. */
function columnGroups(widths: readonly number[], width: number): number[][] {
  const groups: number[][] = [[]];
  let used = 0;
  for (const [i, own] of widths.entries()) {
    const group = groups.at(-1) as number[];
    if (group.length > 0 && used + own > width) {
      groups.push([i]);
      used = indent.length + own + 2;
    } else {
      group.push(i);
      used += own + 2;
    }
  }
  return groups;
}

/** A length of time for people. */
export function durationText(seconds: number): string {
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7_200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`;
}

/** ISO 8601 in local time with its offset, whole seconds: 2026-03-01T12:00:00+01:00. */
export function localTime(unixMs: number): string {
  const date = new Date(unixMs);
  const two = (value: number) => `${value}`.padStart(2, "0");
  const offset = -date.getTimezoneOffset();
  const zone = `${offset < 0 ? "-" : "+"}${two(Math.floor(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`;
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day}T${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}${zone}`;
}
