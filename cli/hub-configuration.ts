/** hub.yaml: read, checked against its schema and for sense; every error names file, line and column. */
import { dirname, join, resolve } from "node:path";
import type { HubConfiguration, LineConfiguration, MeterConfiguration } from "../agent/configuration.ts";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { publicKeyOfDid } from "../protocol/public-key.ts";
import { quantities, quantityOfCode, quantityOfName } from "../protocol/quantity.ts";
import type { WalletPolicy } from "../wallet/policy.ts";
import { CommandError } from "./command.ts";
import schema from "./hub.schema.json" with { type: "json" };
import { type ObservationFile, observationOf } from "./hub-observation.ts";
import { loraOf, plansOf } from "./lora-configuration.ts";
import { profileLibrary } from "./profile-files.ts";
import { type UplinkFile, uplinkOf } from "./uplink-configuration.ts";
import { compileSchema, parseYaml, readYamlText, type YamlSource } from "./yaml-source.ts";

const checkAgain = "mend that line, then: ecp config check";
const daySeconds = 86_400;
/** Where neither the file nor the profile knows better: whole kWh. */
const resolutionWhDefault = 1_000;
/** Longest path that fits into a sockaddr_un (unix(7)). */
const socketPathBytesMax = 107;

/** The file's form, as the schema has it. */
interface HubFile extends ObservationFile {
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
    resolution_wh?: number;
  }[];
  profiles?: string[];
  uplink?: UplinkFile;
}

/** hub.yaml with what it says to agent and wallet. */
export interface Hub {
  readonly file: string;
  readonly configuration: HubConfiguration;
  /** Built in, and those of the files that it names. */
  readonly profiles: readonly MeterProfile[];
  /** The profile of that id, built in or from a file of `profiles`; each meter's is there. */
  readonly profileOf: (id: string) => MeterProfile;
  readonly policy: Pick<WalletPolicy, "meters" | "sealEveryS" | "whenFull" | "retentionDays" | "encryptTo" | "plans">;
}

const validate = compileSchema<HubFile>(schema);

/** Reads hub.yaml. Throws {@link CommandError} with file:line:column. Relative paths count from the file's folder. */
export function readHubFile(path: string): Hub {
  return hubOf(
    path,
    readYamlText(path, "a hub's configuration", "'ecp init' makes one; or name another with --config FILE"),
  );
}

/** The same from a text; `path` is for messages and for relative paths. */
export function hubOf(path: string, text: string): Hub {
  const { data, source } = parseYaml(path, text, validate, checkAgain);
  const folder = dirname(resolve(path));
  const profiles = profileLibrary(
    (data.profiles ?? []).map((file) => resolve(folder, file)),
    (index, expected, got) => source.error(["profiles", index], expected, got),
  );
  const meters = data.meters.map((meter, index) => meterOf(meter, index, data, source, profiles));
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
  const profileOf = (id: string): MeterProfile => profiles.find((profile) => profile.id === id) as MeterProfile;
  const lines = data.lines.map((line, index) => lineOf(line, index, source));
  const { lora: loraFile, mqtt } = data.uplink ?? {};
  const serialPaths = lines.flatMap(({ serial }) => (serial ? [serial.path] : []));
  const lora =
    loraFile && loraOf(loraFile, { folder, meters, profileOf, serialPaths, hasMqtt: mqtt !== undefined }, source);
  return {
    file: path,
    profiles,
    profileOf,
    configuration: {
      walletFolder,
      walletSocket,
      ...(data.wallet.passphrase_file && { passphraseFile: resolve(folder, data.wallet.passphrase_file) }),
      agentSocket,
      lines,
      meters,
      sealEveryS,
      ...(data.uplink && uplinkOf(data.uplink, folder, source)),
      ...(lora && { lora }),
      ...observationOf(data, folder, source),
    },
    policy: {
      meters: meters.map(({ index, name, profile, intervalS, powerMaxW }, place) => ({
        ...{ index, name, profile, powerMaxW, installation: 0, installationReason: "" },
        resolutionWh: data.meters[place]?.resolution_wh ?? profileOf(profile).energyStepWh ?? resolutionWhDefault,
        slotS: intervalS,
        // Twice the due rate: after a restart of the wallet, rows that waited may come on top.
        rowsPerMinute: Math.max(2, Math.ceil(120 / intervalS) + (lora ? Math.ceil(120 / lora.slotS) : 0)),
      })),
      sealEveryS,
      whenFull: data.wallet.when_full,
      retentionDays: data.wallet.retention_days,
      encryptTo: encryptToOf(data.uplink, source),
      plans: plansOf(lora),
    },
  };
}

function lineOf(line: HubFile["lines"][number], index: number, source: YamlSource): LineConfiguration {
  const { name, serial, tcp } = line;
  if (serial) {
    const { path, baud, data_bits: dataBits, parity, stop_bits: stopBits } = serial;
    return { name, serial: { path, baud, dataBits, parity, stopBits } };
  }
  if (tcp) return { name, tcp };
  throw source.error(["lines", index], "'serial:' or 'tcp:' beside the line's name", "neither");
}

function meterOf(
  meter: HubFile["meters"][number],
  place: number,
  data: HubFile,
  source: YamlSource,
  profiles: readonly MeterProfile[],
): MeterConfiguration {
  const at = (key: string): (string | number)[] => ["meters", place, key];
  if (!data.lines.some((line) => line.name === meter.line))
    throw source.error(at("line"), `one of the lines: ${data.lines.map((line) => line.name).join(", ")}`, meter.line);
  const profile = profiles.find(({ id }) => id === meter.profile);
  if (!profile)
    throw source.error(
      at("profile"),
      `one of the profiles: ${profiles.map((item) => item.id).join(", ")}`,
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
    const offered = profile.codes;
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

/** A broker that is not the node's own is to read nothing, unless the operator says otherwise. */
function encryptToOf(uplink: HubFile["uplink"], source: YamlSource): WalletPolicy["encryptTo"] {
  const brokers = uplink?.mqtt ? [uplink.mqtt, ...(uplink.mqtt.fallbacks ?? [])] : [];
  const { encrypt = brokers.length === 0 || brokers.some(({ own_broker: isOwn }) => !isOwn), encrypt_to: node } =
    uplink ?? {};
  if (node === undefined) return encrypt ? "first" : "nobody";
  if (!encrypt)
    throw source.error(["uplink", "encrypt_to"], "no encrypt_to where records are not encrypted", node, true);
  try {
    return publicKeyOfDid(node);
  } catch {
    throw source.error(["uplink", "encrypt_to"], "a full node's name as `ecp pin` shows it, did:key:z6Mk…", node);
  }
}

function checkUnique(
  source: YamlSource,
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

function checkLines(source: YamlSource, lines: HubFile["lines"]): void {
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
function checkUnits(source: YamlSource, meters: readonly MeterConfiguration[]): void {
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

function checkSocket(source: YamlSource, path: readonly string[], socket: string): void {
  if (Buffer.byteLength(socket) > socketPathBytesMax)
    throw source.error(path, `a socket's path of at most ${socketPathBytesMax} bytes`, socket);
}
