/** Files in YAML: read, checked against a schema; every error names file, line and column. */
import { Ajv2020, type ErrorObject, type ValidateFunction } from "ajv/dist/2020.js";
import { type Document, isMap, isPair, isScalar, LineCounter, type Node, parseDocument, visit } from "yaml";
import { CommandError, exit } from "./command.ts";
import { readInput } from "./input-file.ts";

const fileBytesMax = 262_144;

/** A YAML file, for errors that say where in it. */
export class YamlSource {
  readonly file: string;
  readonly #document: Document.Parsed;
  readonly #lines: LineCounter;
  readonly #todo: string;

  constructor(file: string, document: Document.Parsed, lines: LineCounter, todo: string) {
    this.file = file;
    this.#todo = todo;
    this.#document = document;
    this.#lines = lines;
  }

  /** An error at a place of the file: the value that a path leads to, or the key itself. */
  error(path: readonly (string | number)[], expected: string, got: string, atKey = false): CommandError {
    return this.at(this.#offset(path, atKey), expected, got);
  }

  at(offset: number, expected: string, got: string): CommandError {
    const { line, col } = this.#lines.linePos(offset);
    return new CommandError(exit.badConfiguration, {
      expected,
      got: withoutSecrets(got),
      where: `${this.file}:${line}:${col}`,
      todo: this.#todo,
    });
  }

  #offset(path: readonly (string | number)[], atKey: boolean): number {
    const last = path.at(-1);
    const parent = this.#node(path.slice(0, -1));
    if (atKey && isMap(parent)) {
      const pair = parent.items.find((item) => isPair(item) && isScalar(item.key) && item.key.value === last);
      const range = pair && (pair.key as Node).range;
      if (range) return range[0];
    }
    for (let length = path.length; length >= 0; length--) {
      const range = this.#node(path.slice(0, length))?.range;
      if (range) return range[0];
    }
    return 0;
  }

  #node(path: readonly (string | number)[]): Node | undefined {
    const node = path.length === 0 ? this.#document.contents : this.#document.getIn(path, true);
    return (node as Node | null | undefined) ?? undefined;
  }
}

/** A schema as a check that fills in its defaults. */
export function compileSchema<T>(schema: object): ValidateFunction<T> {
  return new Ajv2020({ allErrors: true, useDefaults: true, verbose: true, allowUnionTypes: true }).compile<T>(schema);
}

/** The text of a file; `what` and `todo` are for the error when it is not there. */
export function readYamlText(path: string, what: string, todo: string): string {
  const bytes = readInput(path, what, todo);
  if (bytes.length <= fileBytesMax) return bytes.toString("utf8");
  throw new CommandError(exit.badConfiguration, {
    expected: `${what} of at most ${fileBytesMax} bytes`,
    got: `${bytes.length} bytes`,
    where: path,
    todo: "check that this is the right file",
  });
}

/** The value of a YAML text that the schema holds for. Throws {@link CommandError}; `todo` is its advice. */
export function parseYaml<T>(
  path: string,
  text: string,
  validate: ValidateFunction<T>,
  todo: string,
): { data: T; source: YamlSource } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, strict: true, uniqueKeys: true });
  const source = new YamlSource(path, document, lines, todo);
  const [problem] = document.errors;
  if (problem) throw source.at(problem.pos[0], "YAML that can be read", yamlProblem(problem.message));
  visit(document, {
    Alias: (_, alias) => {
      throw source.at(alias.range?.[0] ?? 0, "each value written out", `the alias *${alias.source}`);
    },
  });
  const data: unknown = document.toJS();
  if (!validate(data)) throw schemaError(source, worstOf(validate.errors as ErrorObject[]));
  return { data, source };
}

/** The one error to show. A key that was mistyped is missing as well: that it is unknown says where to look. */
function worstOf(errors: readonly ErrorObject[]): ErrorObject {
  return errors.find(({ keyword }) => keyword === "additionalProperties") ?? (errors[0] as ErrorObject);
}

/** What the schema found, in words. */
function schemaError(source: YamlSource, error: ErrorObject): CommandError {
  const path = error.instancePath
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .map((part) => (/^\d+$/.test(part) ? Number(part) : part));
  const params = error.params as Record<string, unknown>;
  const name = path.length === 0 ? "the file" : path.filter((part) => typeof part === "string").at(-1);
  const got = shown(error.data);
  switch (error.keyword) {
    case "additionalProperties": {
      const key = String(params.additionalProperty);
      const known = Object.keys((error.parentSchema as { properties: object }).properties);
      return source.error([...path, key], `one of the keys ${known.join(", ")}`, `the unknown key '${key}'`, true);
    }
    case "required":
      return source.error(path, `the key '${String(params.missingProperty)}' in ${name}`, "it is missing");
    case "enum":
      return source.error(path, `${name}: one of ${(params.allowedValues as unknown[]).join(", ")}`, got);
    case "pattern": {
      const { description } = error.parentSchema as { description?: string };
      return source.error(path, `${name}: ${(description ?? error.message ?? "").replace(/\.$/, "")}`, got);
    }
    case "minProperties":
    case "maxProperties":
      return source.error(path, "a name and one of 'serial:' and 'tcp:'", Object.keys(error.data as object).join(", "));
    default:
      return source.error(path, `${name}: ${wanted(error.parentSchema as ValueSchema)}`, got);
  }
}

type ValueSchema = {
  type?: string | string[];
  description?: string;
  minimum?: number;
  maximum?: number;
  minItems?: number;
  maxItems?: number;
};

/** What a value's schema asks for, in words. */
function wanted({ type, description, minimum, maximum, minItems, maxItems }: ValueSchema): string {
  if (Array.isArray(type)) return `${type.join(" or ")}: ${description}`;
  switch (type) {
    case "object":
      return "a block of keys";
    case "array":
      return `a list of ${minItems} to ${maxItems} different items`;
    case "integer":
      return `an integer from ${minimum} to ${maximum}`;
    case "number":
      return "a number";
    case "boolean":
      return "true or false";
    default:
      return "a text that is not empty";
  }
}

/** Errors go into logs: what stands in a URL before the @ (RFC 3986 §3.2.1), or as its query, may be a password or token. */
function withoutSecrets(text: string): string {
  return text
    .replace(/([a-z][a-z0-9+.-]*:\/\/)[^\s"]*@/gi, "$1…@")
    .replace(/([a-z][a-z0-9+.-]*:\/\/[^\s"?#]*)[?#][^\s"]*/gi, "$1?…");
}

function shown(value: unknown): string {
  return value === null ? "nothing" : withoutSecrets(JSON.stringify(value) ?? "nothing").slice(0, 80);
}

/** The library's words without the place, which is said beside them, and without advice on its own use. */
function yamlProblem(message: string): string {
  return message.replace(/ at line \d+, column \d+:?[\s\S]*$/, "").replace(/; please use .*$/, "");
}
