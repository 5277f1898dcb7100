/**
 * As much of CDDL (RFC 8610) as protocol/ecp.cddl uses, to check messages against it: maps, arrays, groups, choices, ranges,
 * occurrences, `.size`, `.cbor` and tags. Refuses what it does not know, so that the file cannot say what nobody checks.
 */
import { type CborValue, decodeCbor } from "../../protocol/deterministic-cbor.ts";

export interface Tagged {
  readonly tag: number;
  readonly value: CborValue;
}

type Value = CborValue | Tagged;
type Type =
  | { readonly kind: "literal"; readonly value: number }
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "range"; readonly min: number; readonly max: number }
  | { readonly kind: "choice"; readonly types: readonly Type[] }
  | { readonly kind: "size"; readonly of: Type; readonly size: Type }
  | { readonly kind: "cbor"; readonly content: Type }
  | { readonly kind: "tag"; readonly tag: number; readonly content: Type }
  | { readonly kind: "map" | "array" | "group"; readonly entries: readonly Entry[] };

interface Entry {
  readonly min: number;
  readonly max: number;
  /** A literal key cuts; undefined: an item of an array, or a group by its name. */
  readonly key?: Type;
  readonly type: Type;
}

const tokenPattern = /\s+|;.*|(#6\.\d+|=>|\.\.|\.[a-z]+|-?\d+|[A-Za-z][\w-]*|[=/?*,:(){}[\]])/gy;

function tokensOf(text: string): string[] {
  const tokens: string[] = [];
  let end = 0;
  for (const match of text.matchAll(tokenPattern)) {
    if (match[1] !== undefined) tokens.push(match[1]);
    end = match.index + match[0].length;
  }
  if (end !== text.length) throw new Error(`CDDL: not understood: ${text.slice(end, end + 40)}`);
  return tokens;
}

const closing = { "{": "}", "[": "]", "(": ")" } as const;
const isNumber = (token: string | undefined): boolean => token !== undefined && /^-?\d+$/.test(token);
const isName = (token: string | undefined): boolean => token !== undefined && /^[A-Za-z]/.test(token);

export function parseCddl(text: string): ReadonlyMap<string, Type> {
  const tokens = tokensOf(text);
  let at = 0;
  const take = (expected?: string): string => {
    const token = tokens[at++];
    if (token === undefined || (expected !== undefined && token !== expected))
      throw new Error(
        `CDDL: expected ${expected ?? "more"}, got ${token} after ${tokens.slice(at - 6, at - 1).join(" ")}`,
      );
    return token;
  };

  const type = (): Type => {
    const types = [controlled()];
    while (tokens[at] === "/") {
      at++;
      types.push(controlled());
    }
    return types.length === 1 ? (types[0] as Type) : { kind: "choice", types };
  };

  const controlled = (): Type => {
    const of = primary();
    if (tokens[at] === "..") {
      at++;
      const max = primary();
      if (of.kind !== "literal" || max.kind !== "literal") throw new Error("CDDL: a range of two numbers was expected");
      return { kind: "range", min: of.value, max: max.value };
    }
    if (tokens[at] === ".size") {
      at++;
      return { kind: "size", of, size: primary() };
    }
    if (tokens[at] === ".cbor") {
      at++;
      return { kind: "cbor", content: primary() };
    }
    return of;
  };

  const primary = (): Type => {
    const token = take();
    if (isNumber(token)) return { kind: "literal", value: Number(token) };
    if (isName(token)) return { kind: "name", name: token };
    if (token.startsWith("#6.")) {
      take("(");
      const content = type();
      take(")");
      return { kind: "tag", tag: Number(token.slice(3)), content };
    }
    if (token === "{" || token === "[" || token === "(") {
      const entries: Entry[] = [];
      while (tokens[at] !== closing[token]) {
        entries.push(entry());
        if (tokens[at] === ",") at++;
      }
      take(closing[token]);
      const [only] = entries;
      if (token === "(" && entries.length === 1 && only?.key === undefined && only?.max === 1) return only.type;
      return { kind: token === "{" ? "map" : token === "[" ? "array" : "group", entries };
    }
    throw new Error(`CDDL: unexpected ${token}`);
  };

  const entry = (): Entry => {
    let [min, max] = [1, 1];
    if (tokens[at] === "?") {
      at++;
      min = 0;
    } else if (tokens[at] === "*" || (isNumber(tokens[at]) && tokens[at + 1] === "*")) {
      min = isNumber(tokens[at]) ? Number(take()) : 0;
      take("*");
      // `*15 x` is a limit, `* (…)` and `* x` are none.
      max =
        isNumber(tokens[at]) && tokens[at + 1] !== ".." && tokens[at + 1] !== "=>"
          ? Number(take())
          : Number.POSITIVE_INFINITY;
    }
    if (tokens[at + 1] === ":") {
      const token = take();
      take(":");
      // A name before a colon is a text key in a map, and in an array only says what the item is.
      return { min, max, ...(isNumber(token) && { key: { kind: "literal", value: Number(token) } }), type: type() };
    }
    const first = type();
    if (tokens[at] !== "=>") return { min, max, type: first };
    at++;
    return { min, max, key: first, type: type() };
  };

  const rules = new Map<string, Type>();
  while (at < tokens.length) {
    const name = take();
    take("=");
    if (rules.has(name)) throw new Error(`CDDL: two rules named ${name}`);
    rules.set(name, type());
  }
  return rules;
}

const builtIn: { readonly [name: string]: (value: Value) => boolean } = {
  any: () => true,
  int: (value) => typeof value === "number" || typeof value === "bigint",
  uint: (value) => (typeof value === "number" || typeof value === "bigint") && value >= 0,
  tstr: (value) => typeof value === "string",
  bstr: (value) => value instanceof Uint8Array,
  true: (value) => value === true,
};

/** Names that rules use and nobody defines, and rules that nobody uses but `root`. */
export function looseEnds(rules: ReadonlyMap<string, Type>, root: string): string[] {
  const used = new Set([root]);
  const visit = (node: unknown): void => {
    if (typeof node !== "object" || node === null) return;
    if ("kind" in node && node.kind === "name" && "name" in node) used.add(node.name as string);
    for (const child of Object.values(node)) visit(child);
  };
  for (const type of rules.values()) visit(type);
  return [
    ...[...used].filter((name) => !rules.has(name) && !(name in builtIn)),
    ...[...rules.keys()].filter((name) => !used.has(name)),
  ];
}

export function matches(rules: ReadonlyMap<string, Type>, type: Type, value: Value): boolean {
  switch (type.kind) {
    case "literal":
      return value === type.value;
    case "range":
      return typeof value === "number" && value >= type.min && value <= type.max;
    case "choice":
      return type.types.some((one) => matches(rules, one, value));
    case "name": {
      const rule = rules.get(type.name);
      return rule ? matches(rules, rule, value) : (builtIn[type.name]?.(value) ?? false);
    }
    case "size": {
      const length =
        typeof value === "string" ? Buffer.byteLength(value) : value instanceof Uint8Array ? value.length : -1;
      return matches(rules, type.of, value) && matches(rules, type.size, length);
    }
    case "cbor":
      return value instanceof Uint8Array && matches(rules, type.content, decodeMessage(value));
    case "tag":
      return isTagged(value) && value.tag === type.tag && matches(rules, type.content, value.value);
    case "map":
      return value instanceof Map && matchesMap(rules, inlined(rules, type.entries), value);
    case "array":
      return Array.isArray(value) && matchesArray(rules, type.entries, value);
    case "group":
      throw new Error("CDDL: a group stands where a type was expected");
  }
}

/** One data item, or a message behind tag 18 or 16, which nothing else may have. */
export function decodeMessage(bytes: Uint8Array): Value {
  const tag = ((bytes[0] ?? 0) & 0xe0) === 0xc0 ? (bytes[0] as number) & 0x1f : undefined;
  return tag === 18 || tag === 16 ? { tag, value: decodeCbor(bytes.subarray(1)) } : decodeCbor(bytes);
}

function isTagged(value: Value): value is Tagged {
  return typeof value === "object" && value !== null && "tag" in value;
}

/** The entries of a map with the groups that it names put in their place. */
function inlined(rules: ReadonlyMap<string, Type>, entries: readonly Entry[]): readonly Entry[] {
  return entries.flatMap((entry) => {
    const rule = entry.key === undefined && entry.type.kind === "name" ? rules.get(entry.type.name) : undefined;
    return rule?.kind === "group" ? inlined(rules, rule.entries) : [entry];
  });
}

function matchesMap(
  rules: ReadonlyMap<string, Type>,
  entries: readonly Entry[],
  map: Map<unknown, CborValue>,
): boolean {
  const left = new Map(map);
  for (const { key, type, min, max } of entries.toSorted(
    (a, b) => Number(b.key?.kind === "literal") - Number(a.key?.kind === "literal"),
  )) {
    let count = 0;
    for (const [name, value] of [...left]) {
      if (key === undefined || !matches(rules, key, name as CborValue) || count === max) continue;
      if (!matches(rules, type, value)) return false;
      left.delete(name);
      count++;
    }
    if (count < min) return false;
  }
  return left.size === 0;
}

function matchesArray(
  rules: ReadonlyMap<string, Type>,
  entries: readonly Entry[],
  items: readonly CborValue[],
): boolean {
  let at = 0;
  for (const { type, min, max } of entries) {
    let count = 0;
    while (at < items.length && count < max && matches(rules, type, items[at] as CborValue)) {
      at++;
      count++;
    }
    if (count < min) return false;
  }
  return at === items.length;
}
