/** The tables of docs/configuration.md, from the schema. Run as a program it writes them into the page. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import schema from "../../cli/hub.schema.json" with { type: "json" };

export const configurationPage: string = join(import.meta.dirname, "..", "..", "docs", "configuration.md");
const [begin, end] = ["<!-- tables: from cli/hub.schema.json -->", "<!-- end of the tables -->"];

export interface SchemaNode {
  readonly description?: string;
  readonly type?: string;
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly required?: readonly string[];
  readonly items?: SchemaNode;
  readonly enum?: readonly unknown[];
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
}

export const hubSchema: SchemaNode = schema;

/** Every key with its path, in the order of the schema; `[]` stands for an item of a list. */
export function* keysOf(node: SchemaNode, path: readonly string[] = []): Generator<[path: string[], node: SchemaNode]> {
  for (const [key, value] of Object.entries(node.properties ?? {})) {
    yield [[...path, key], value];
    yield* keysOf(value, [...path, key]);
    if (value.items) yield* keysOf(value.items, [...path, `${key}[]`]);
  }
}

function allowed(node: SchemaNode): string {
  if (node.enum) return node.enum.map((item) => `\`${item}\``).join(", ");
  if (node.type === "boolean") return "`true`, `false`";
  if (node.type === "integer") return `${node.minimum} to ${node.maximum}`;
  if (node.type === "array") return `list of ${node.minItems} to ${node.maxItems}`;
  return node.type === "object" ? "block" : "text";
}

function table(title: string, node: SchemaNode): string {
  const rows = Object.entries(node.properties ?? {}).map(([key, value]) => {
    const preset = node.required?.includes(key)
      ? "**required**"
      : value.default === undefined
        ? ""
        : `\`${value.default}\``;
    return `| \`${key}\` | ${allowed(value)} | ${preset} | ${value.description} |\n`;
  });
  return `### ${title}\n\n| key | allowed | unless given | what it is |\n|---|---|---|---|\n${rows.join("")}\n`;
}

export function configurationTables(): string {
  const blocks = [...keysOf(hubSchema)].flatMap(([path, node]) => {
    const block = node.properties ? node : node.items;
    return block?.properties ? [table(`\`${path.join(".")}${node.items ? "[]" : ""}\``, block)] : [];
  });
  return `${begin}\n\n${table("The file", hubSchema)}${blocks.join("")}${end}`;
}

/** The page with these tables in the place of its own. */
export function withTables(page: string): string {
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${configurationPage} has lost its marks "${begin}" and "${end}"`);
  return page.slice(0, from) + configurationTables() + page.slice(to + end.length);
}

if (import.meta.main) writeFileSync(configurationPage, withTables(readFileSync(configurationPage, "utf8")));
