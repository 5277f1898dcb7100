/** hub.yaml: read, checked against its schema and for sense; every error names file, line and column. */
import { dirname, join, resolve } from "node:path";
import { Ajv2020, type ErrorObject } from "ajv/dist/2020.js";
import { type Document, isMap, isPair, isScalar, LineCounter, type Node, parseDocument, visit } from "yaml";
import type {
  HubConfiguration,
  LineConfiguration,
  MeterConfiguration,
  MqttConfiguration,
} from "../agent/configuration.ts";
import { findMeterProfile, meterProfiles } from "../drivers/modbus/profile-catalogue.ts";
import { quantities, quantityOfCode, quantityOfName } from "../protocol/quantity.ts";
import type { WalletPolicy } from "../wallet/policy.ts";
import { CommandError, exit } from "./command.ts";
import schema from "./hub.schema.json" with { type: "json" };
import { readInput } from "./input-file.ts";

const configurationBytesMax = 262_144;
const daySeconds = 86_400;
/** Longest path that fits into a sockaddr_un (unix(7)). */
const socketPathBytesMax = 107;
const ipv6Brackets = /^\[|\]$/g;

/** The file's form, as the schema has it. */
interface HubFile {
  wallet: {
    folder: string;
    socket?: string;
    passphrase_file?: string;
    seal_every_s: number;
    when_full: "refuse" | "drop_oldest";
    retention_days: number;
  };
  agent?: { socket?: string };
  lines: {
    name: string;
    serial?: { path: string; baud: number; data_bits: 7 | 8; parity: "none" | "even" | "odd"; stop_bits: 1 | 2 };
    tcp?: { host: string; port: number; framing: "tcp" | "rtu" };
  }[];
  meters: {
    name: string;
    index?: number;
    line: string;
    unit: number;
    profile: string;
    interval_s: number;
    energy_interval_s?: number;
    quantities?: string[];
    power_max_w?: number;
    resolution_wh: number;
  }[];
  uplink?: { mqtt: { url: string; username?: string; password_file?: string; ca_file?: string } };
}

/** hub.yaml with what it says to agent and wallet. */
export interface Hub {
  readonly file: string;
  readonly configuration: HubConfiguration;
  readonly policy: Pick<WalletPolicy, "meters" | "sealEveryS" | "whenFull" | "retentionDays">;
}

class Source {
  readonly file: string;
  readonly #document: Document.Parsed;
  readonly #lines: LineCounter;

  constructor(file: string, document: Document.Parsed, lines: LineCounter) {
    this.file = file;
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
      got,
      where: `${this.file}:${line}:${col}`,
      todo: "mend that line, then: ecp config check",
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

const validate = new Ajv2020({ allErrors: true, useDefaults: true, verbose: true }).compile<HubFile>(schema);

/** Reads hub.yaml. Throws {@link CommandError} with file:line:column. Relative paths count from the file's folder. */
export function readHubFile(path: string): Hub {
  return hubOf(path, readText(path));
}

function readText(path: string): string {
  const bytes = readInput(path, "a hub's configuration", "'ecp init' makes one; or name another with --config FILE");
  if (bytes.length <= configurationBytesMax) return bytes.toString("utf8");
  throw new CommandError(exit.badConfiguration, {
    expected: `a configuration of at most ${configurationBytesMax} bytes`,
    got: `${bytes.length} bytes`,
    where: path,
    todo: "check that this is the right file",
  });
}

/** The same from a text; `path` is for messages and for relative paths. */
export function hubOf(path: string, text: string): Hub {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, strict: true, uniqueKeys: true });
  const source = new Source(path, document, lines);
  const [problem] = document.errors;
  if (problem) throw source.at(problem.pos[0], "YAML that can be read", yamlProblem(problem.message));
  visit(document, {
    Alias: (_, alias) => {
      throw source.at(alias.range?.[0] ?? 0, "each value written out", `the alias *${alias.source}`);
    },
  });
  const data: unknown = document.toJS();
  if (!validate(data)) throw schemaError(source, worstOf(validate.errors as ErrorObject[]));
  const folder = dirname(resolve(path));
  const meters = data.meters.map((meter, index) => meterOf(meter, index, data, source));
  checkUnique(source, meters, "index", "an index of its own");
  checkUnique(source, meters, "name", "a name of its own");
  checkLines(source, data.lines);
  checkUnits(source, meters);
  const sealEveryS = data.wallet.seal_every_s;
  const walletFolder = resolve(folder, data.wallet.folder);
  const walletSocket = resolve(folder, data.wallet.socket ?? join(walletFolder, "wallet.sock"));
  const agentSocket = resolve(folder, data.agent?.socket ?? "agent.sock");
  checkSocket(source, ["wallet", "socket"], walletSocket);
  checkSocket(source, ["agent", "socket"], agentSocket);
  return {
    file: path,
    configuration: {
      walletFolder,
      walletSocket,
      ...(data.wallet.passphrase_file && { passphraseFile: resolve(folder, data.wallet.passphrase_file) }),
      agentSocket,
      lines: data.lines.map((line, index) => lineOf(line, index, source)),
      meters,
      sealEveryS,
      ...(data.uplink && { mqtt: mqttOf(data.uplink.mqtt, folder, source) }),
    },
    policy: {
      meters: meters.map(({ index, name, profile, intervalS, powerMaxW }, place) => ({
        ...{ index, name, profile, powerMaxW, installation: 0, installationReason: "" },
        resolutionWh: (data.meters[place] as HubFile["meters"][number]).resolution_wh,
        slotS: intervalS,
        // Twice the due rate: after a restart of the wallet, rows that waited may come on top.
        rowsPerMinute: Math.max(2, Math.ceil(120 / intervalS)),
      })),
      sealEveryS,
      whenFull: data.wallet.when_full,
      retentionDays: data.wallet.retention_days,
    },
  };
}

function lineOf(line: HubFile["lines"][number], index: number, source: Source): LineConfiguration {
  const { name, serial, tcp } = line;
  if (serial) {
    const { path, baud, data_bits: dataBits, parity, stop_bits: stopBits } = serial;
    return { name, serial: { path, baud, dataBits, parity, stopBits } };
  }
  if (tcp) return { name, tcp };
  throw source.error(["lines", index], "'serial:' or 'tcp:' beside the line's name", "neither");
}

function meterOf(meter: HubFile["meters"][number], place: number, data: HubFile, source: Source): MeterConfiguration {
  const at = (key: string): (string | number)[] => ["meters", place, key];
  if (!data.lines.some((line) => line.name === meter.line))
    throw source.error(at("line"), `one of the lines: ${data.lines.map((line) => line.name).join(", ")}`, meter.line);
  const profile = findMeterProfile(meter.profile);
  if (!profile)
    throw source.error(
      at("profile"),
      `one of the profiles: ${meterProfiles.map((item) => item.id).join(", ")}`,
      meter.profile,
    );
  if (daySeconds % meter.interval_s !== 0)
    throw source.error(at("interval_s"), "a number of seconds that divides a day", `${meter.interval_s}`);
  const { interval_s: intervalS, energy_interval_s: energyIntervalS = intervalS } = meter;
  if (daySeconds % energyIntervalS !== 0 || energyIntervalS % intervalS !== 0)
    throw source.error(
      at("energy_interval_s"),
      `a multiple of interval_s (${intervalS}) that divides a day`,
      `${energyIntervalS}`,
    );
  const codes = meter.quantities?.map((name, index) => {
    const quantity = quantityOfName(name);
    const offered = profile.registers.map((register) => register.code);
    if (quantity && offered.includes(quantity.code)) return quantity.code;
    const names = quantities.filter((item) => offered.includes(item.code)).map((item) => item.name);
    throw source.error([...at("quantities"), index], `a quantity of ${profile.id}: ${names.join(", ")}`, name);
  });
  const isFast = (code: number): boolean => quantityOfCode(code)?.cumulative !== true;
  if (energyIntervalS !== intervalS && !(codes ?? profile.defaultCodes).some(isFast))
    throw source.error(
      at("energy_interval_s"),
      "beside it a quantity to be read every interval_s, such as active-power-import",
      "registers only",
    );
  return {
    index: meter.index ?? place,
    name: meter.name,
    line: meter.line,
    unit: meter.unit,
    profile: meter.profile,
    intervalS,
    ...(energyIntervalS !== intervalS && { energyIntervalS }),
    ...(codes && { codes: codes.sort((a, b) => a - b) }),
    powerMaxW: meter.power_max_w ?? 0,
  };
}

function mqttOf(mqtt: NonNullable<HubFile["uplink"]>["mqtt"], folder: string, source: Source): MqttConfiguration {
  const url = URL.canParse(mqtt.url) ? new URL(mqtt.url) : undefined;
  if (!url || url.hostname === "" || url.port === "0" || url.search !== "" || url.hash !== "")
    throw source.error(["uplink", "mqtt", "url"], "mqtt://host:port or mqtts://host:port", mqtt.url);
  const protocol = url.protocol === "mqtts:" ? "mqtts" : "mqtt";
  if (mqtt.ca_file && protocol === "mqtt")
    throw source.error(["uplink", "mqtt", "ca_file"], "an mqtts:// address beside a ca_file", mqtt.url, true);
  // MQTT 3.1.1 §3.1.2.9: without a user name there must be no password.
  if (mqtt.password_file && !mqtt.username)
    throw source.error(["uplink", "mqtt", "password_file"], "a username beside the password_file", "none", true);
  return {
    protocol,
    host: url.hostname.replace(ipv6Brackets, ""),
    port: url.port === "" ? (protocol === "mqtts" ? 8883 : 1883) : Number(url.port),
    ...(mqtt.username && { username: mqtt.username }),
    ...(mqtt.password_file && { passwordFile: resolve(folder, mqtt.password_file) }),
    ...(mqtt.ca_file && { caFile: resolve(folder, mqtt.ca_file) }),
  };
}

function checkUnique(
  source: Source,
  meters: readonly MeterConfiguration[],
  key: "index" | "name",
  wanted: string,
): void {
  meters.forEach((meter, place) => {
    const first = meters.findIndex((other) => other[key] === meter[key]);
    if (first !== place)
      throw source.error(
        ["meters", place, key],
        `${wanted} for each meter`,
        `${meter[key]}, as meter ${first + 1} of the list has`,
      );
  });
}

/** The one error to show. A key that was mistyped is missing as well: that it is unknown says where to look. */
function worstOf(errors: readonly ErrorObject[]): ErrorObject {
  return errors.find(({ keyword }) => keyword === "additionalProperties") ?? (errors[0] as ErrorObject);
}

function checkLines(source: Source, lines: HubFile["lines"]): void {
  const endOf = ({ serial, tcp }: HubFile["lines"][number]): string => serial?.path ?? `${tcp?.host}:${tcp?.port}`;
  lines.forEach((line, index) => {
    const before = lines.slice(0, index);
    if (before.some((other) => other.name === line.name))
      throw source.error(["lines", index, "name"], "a name of its own for each line", line.name);
    const same = before.find((other) => endOf(other) === endOf(line));
    if (same)
      throw source.error(["lines", index], "a port of its own for each line", `${endOf(line)}, as ${same.name} has`);
  });
}

/** One meter read under two names would count its energy twice. */
function checkUnits(source: Source, meters: readonly MeterConfiguration[]): void {
  meters.forEach(({ line, unit }, index) => {
    const same = meters.slice(0, index).find((other) => other.line === line && other.unit === unit);
    if (same)
      throw source.error(
        ["meters", index, "unit"],
        `a unit of its own for each meter of the line ${line}`,
        `${unit}, as ${same.name} has`,
      );
  });
}

function checkSocket(source: Source, path: readonly string[], socket: string): void {
  if (Buffer.byteLength(socket) > socketPathBytesMax)
    throw source.error(path, `a socket's path of at most ${socketPathBytesMax} bytes`, socket);
}

/** What the schema found, in words. */
function schemaError(source: Source, error: ErrorObject): CommandError {
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

type ValueSchema = { type?: string; minimum?: number; maximum?: number; minItems?: number; maxItems?: number };

/** What a value's schema asks for, in words. */
function wanted({ type, minimum, maximum, minItems, maxItems }: ValueSchema): string {
  switch (type) {
    case "object":
      return "a block of keys";
    case "array":
      return `a list of ${minItems} to ${maxItems} different items`;
    case "integer":
      return `an integer from ${minimum} to ${maximum}`;
    default:
      return "a text that is not empty";
  }
}

function shown(value: unknown): string {
  return value === null ? "nothing" : (JSON.stringify(value) ?? "nothing").slice(0, 80);
}

/** The library's words without the place, which is said beside them, and without advice on its own use. */
function yamlProblem(message: string): string {
  return message.replace(/ at line \d+, column \d+:?[\s\S]*$/, "").replace(/; please use .*$/, "");
}
