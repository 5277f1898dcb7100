/** ecp init: a new hub's folder: hub.yaml, passphrase file, wallet with its key, policy. */
import { randomBytes } from "node:crypto";
import { existsSync, rmdirSync, rmSync, statSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { findMeterProfile, meterProfiles } from "../drivers/modbus/profile-catalogue.ts";
import { listSerialPorts } from "../drivers/serial/serial-port-list.ts";
import { writeFileDurably } from "../platform/durable-file.ts";
import { segmentsDefault, segmentsMax, segmentsMin } from "../wallet/journal-ring.ts";
import { emptyPolicy } from "../wallet/policy.ts";
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { PassphraseError, readPassphrase } from "./ecp-wallet-passphrase.ts";
import { type Hub, hubOf } from "./hub-configuration.ts";
import { runWalletCommand, writePolicy } from "./hub-wallet.ts";
import { makeFolder } from "./output-file.ts";
import { isProfilePath, profileNamed, readProfileFile } from "./profile-files.ts";
import { shellWord } from "./shell-word.ts";
import { ask, canAsk } from "./terminal-question.ts";

const passphraseRandomBytes = 24;
const daySeconds = 86_400;

interface Answers {
  readonly line: { serial: string; baud: number; parity: string } | { tcp: string };
  readonly profile: string;
  /** Where that profile stands, when it is not built in. */
  readonly profileFile: string | undefined;
  readonly unit: number;
  readonly intervalS: number;
  readonly mqtt: string;
}

export const hubInit: Command = {
  summary: "set up a new hub: configuration, wallet, key",
  usage: `Usage: ecp init [--folder DIR] [--serial PATH [--baud N] [--parity none|even|odd] | --tcp HOST:PORT]
                [--profile NAME|FILE] [--unit N] [--interval SECONDS] [--mqtt URL] [--passphrase-file FILE] [--segments N]

Makes, in DIR (default: this folder), hub.yaml, a passphrase file of mode 0600 with a random passphrase (unless one is
given), and wallet/ with the device key and its journal of N MiB (default ${segmentsDefault}). Asks for what is not given when run at a
terminal. Nothing that is there is overwritten, and where it fails or is interrupted, nothing that it made is left.
A profile is one of those below, or the path of a file, which hub.yaml then names where it is.

profiles: ${meterProfiles.map((item) => item.id).join(", ")}`,

  async run(args) {
    const { values } = parseCommand(
      "ecp init",
      args,
      {
        folder: { type: "string", default: "." },
        serial: { type: "string" },
        baud: { type: "string" },
        parity: { type: "string" },
        tcp: { type: "string" },
        profile: { type: "string" },
        unit: { type: "string" },
        interval: { type: "string" },
        mqtt: { type: "string" },
        "passphrase-file": { type: "string" },
        segments: { type: "string" },
      },
      [],
    );
    const folder = resolve(values.folder);
    const file = join(folder, "hub.yaml");
    for (const path of [file, join(folder, "wallet", "device.key")]) if (existsSync(path)) throw existing(path);
    const given = values["passphrase-file"];
    const passphraseFile = given === undefined ? join(folder, "wallet.passphrase") : resolve(given);
    // Before anything is asked, and long before anything is made: a wrong value ends here.
    checkFlags(values);
    if (given !== undefined || existsSync(passphraseFile)) await checkPassphraseFile(passphraseFile);
    const answers = await answersOf(values);
    const text = hubText(folder, answers, given === undefined ? "wallet.passphrase" : passphraseFile);
    const hub = checkedHub(file, text, folder);
    const did = make({ folder, hub, text, passphraseFile, segments: values.segments ?? `${segmentsDefault}` });
    process.stdout.write(nextSteps(folder, file, passphraseFile, did, values["passphrase-file"] === undefined));
    return exit.ok;
  },
};

function checkFlags(values: Values): void {
  if (values.serial !== undefined && values.tcp !== undefined)
    throw usageError("ecp init", "--serial and --tcp together: a line is one of the two");
  for (const flag of flags) {
    const given = values[flag];
    const wrong = given === undefined ? undefined : checks[flag](given);
    if (wrong !== undefined) throw usageError("ecp init", `--${flag} ${given}: ${wrong} was expected`);
  }
}

/** Throws {@link CommandError} with the line of a file that is no profile. */
function wrongProfile(named: string): string | undefined {
  if (!isProfilePath(named)) return oneOf(...meterProfiles.map((item) => item.id))(named);
  const { id } = readProfileFile(resolve(named));
  return findMeterProfile(id) === undefined
    ? undefined
    : `a file whose profile has an id of its own, not ${id}, which is built in,`;
}

/** The same for a person, who is asked again. */
function wrongProfileAnswer(named: string): string | undefined {
  try {
    return wrongProfile(named);
  } catch (error) {
    if (error instanceof CommandError) return `${error.text.where}: ${error.text.expected} was expected`;
    throw error;
  }
}

async function checkPassphraseFile(file: string): Promise<void> {
  // A pipe gives what it has once, to the wallet.
  if (statSync(file, { throwIfNoEntry: false })?.isFIFO()) return;
  try {
    (await readPassphrase({ file }, "")).fill(0);
  } catch (error) {
    if (!(error instanceof PassphraseError)) throw error;
    throw new CommandError(existsSync(file) ? exit.notPermitted : exit.noInput, {
      expected: "a file of mode 0600 with a passphrase in its first line",
      got: error.message,
      where: file,
      todo: "mend the file; or, without --passphrase-file, have one made with a random passphrase",
    });
  }
}

/** Of what the flags do not decide, the folder alone can be wrong: a socket's path in it may be too long. */
function checkedHub(file: string, text: string, folder: string): Hub {
  try {
    return hubOf(file, text);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const { expected, got } = error.text;
    throw new CommandError(exit.usage, { expected, got, where: `--folder ${folder}`, todo: "choose another folder" });
  }
}

interface NewHub {
  readonly folder: string;
  readonly hub: Hub;
  readonly text: string;
  readonly passphraseFile: string;
  readonly segments: string;
}

/** Makes it all, or leaves nothing that it made. Gives the device's name. */
function make({ folder, hub, text, passphraseFile, segments }: NewHub): string {
  const wallet = hub.configuration.walletFolder;
  const fresh = [passphraseFile, join(wallet, "device.key"), wallet].filter((path) => !existsSync(path));
  const newFolder = !existsSync(folder);
  // Ctrl-C reaches the wallet's program, whose end is then told as any other failure.
  const stay = (): void => undefined;
  process.on("SIGINT", stay);
  try {
    makeFolder(folder, 0o750);
    if (fresh.includes(passphraseFile))
      writeFileDurably(passphraseFile, `${randomBytes(passphraseRandomBytes).toString("base64url")}\n`, 0o600);
    const paths = ["--data", wallet, "--passphrase-file", passphraseFile];
    const did = runWalletCommand(["init", ...paths, "--segments", segments]);
    writePolicy(hub, { ...emptyPolicy, ...hub.policy });
    writeFileDurably(hub.file, text, 0o640);
    return did;
  } catch (error) {
    for (const path of fresh) rmSync(path, { recursive: true, force: true });
    if (newFolder && existsSync(folder)) rmdirSync(folder);
    throw error;
  } finally {
    process.off("SIGINT", stay);
  }
}

function existing(path: string): CommandError {
  return new CommandError(exit.cannotCreate, {
    expected: "a folder without a hub",
    got: "one is there already; it was left as it is",
    where: path,
    todo: "change hub.yaml and run 'ecp config apply', or choose another --folder",
  });
}

const flags = ["serial", "baud", "parity", "tcp", "profile", "unit", "interval", "mqtt", "segments"] as const;
type Flag = (typeof flags)[number];
type Values = Partial<Record<Flag, string>>;

const oneOf =
  (...choices: readonly string[]) =>
  (text: string): string | undefined =>
    choices.includes(text) ? undefined : `one of ${choices.join(", ")}`;
const integer =
  (min: number, max: number) =>
  (text: string): string | undefined =>
    /^\d{1,6}$/.test(text) && Number(text) >= min && Number(text) <= max
      ? undefined
      : `an integer from ${min} to ${max}`;

/** What is wrong with a flag's value, or with a person's answer; undefined where it is right. */
const checks: Readonly<Record<Flag, (text: string) => string | undefined>> = {
  serial: (text) => (text === "" ? "a path such as /dev/serial/by-id/…" : undefined),
  tcp: (text) => {
    const { host, port } = endpoint(text);
    return host !== "" && port >= 1 && port <= 65_535 ? undefined : "HOST:PORT";
  },
  baud: oneOf("1200", "2400", "4800", "9600", "19200", "38400", "57600", "115200"),
  parity: oneOf("none", "even", "odd"),
  profile: wrongProfile,
  unit: integer(1, 247),
  interval: (text) =>
    integer(1, daySeconds)(text) ??
    (daySeconds % Number(text) === 0 ? undefined : "a number of seconds that divides a day"),
  mqtt: (text) => {
    const url = /^mqtts?:\/\/[^/@?#]+$/.test(text) && URL.canParse(text) ? new URL(text) : undefined;
    return url && url.hostname !== "" && url.port !== "0" ? undefined : "mqtt://host:port or mqtts://host:port";
  },
  segments: integer(segmentsMin, segmentsMax),
};

/** Of all the meters that are known the one met most often. */
const profilePreset = "eastron-sdm630";

async function answersOf(values: Values): Promise<Answers> {
  const question = "Meter's profile ('ecp scan' finds it out)";
  const named = values.profile ?? (canAsk() ? await ask(question, profilePreset, wrongProfileAnswer) : profilePreset);
  const { id: profile, factory } = profileNamed("ecp init", named);
  const profileFile = isProfilePath(named) ? resolve(named) : undefined;
  const line = await lineOf(values, factory);
  const unit = Number(await value(values, "unit", "Modbus unit (address) of the meter", `${factory.unit}`));
  const intervalS = Number(await value(values, "interval", "Seconds between readings", "60"));
  const mqtt = await value(values, "mqtt", "The full node's broker", "mqtt://127.0.0.1:1883");
  return { line, profile, profileFile, unit, intervalS, mqtt };
}

async function lineOf(values: Values, factory: MeterProfile["factory"]): Promise<Answers["line"]> {
  if (values.tcp !== undefined) return { tcp: values.tcp };
  let serial = values.serial;
  if (serial === undefined) {
    const ports = await listSerialPorts();
    if (!canAsk())
      throw usageError(
        "ecp init",
        `no --serial PATH and no --tcp HOST:PORT. Ports here: ${ports.map((port) => port.path).join(", ") || "none"}`,
      );
    process.stdout.write(ports.length === 0 ? "No serial port is plugged in.\n" : "Serial ports:\n");
    for (const port of ports)
      process.stdout.write(`  ${port.path}${port.manufacturer ? `  (${port.manufacturer})` : ""}\n`);
    serial = await ask(
      "Serial port of the meters, or HOST:PORT of a Modbus TCP gateway",
      ports[0]?.path ?? "",
      (text) => (isEndpoint(text) ? checks.tcp(text) : checks.serial(text)),
    );
    if (isEndpoint(serial)) return { tcp: serial };
  }
  const baud = Number(await value(values, "baud", "Baud", `${factory.bauds[0]}`));
  const parity = await value(values, "parity", "Parity", factory.parities[0]);
  // In hub.yaml a relative path would count from whatever folder the agent is started in.
  return { serial: resolve(serial), baud, parity };
}

/** What a flag gives, which is checked already, else what a person answers, else the preset. */
async function value(values: Values, flag: Flag, question: string, preset: string): Promise<string> {
  return values[flag] ?? (canAsk() ? await ask(question, preset, checks[flag]) : preset);
}

function isEndpoint(text: string): boolean {
  return !text.startsWith("/") && text.includes(":");
}

/** HOST or HOST:PORT; IPv6 in brackets. */
function endpoint(text: string): { host: string; port: number } {
  const match = /^(.*):(\d{1,5})$/.exec(text);
  return { host: (match?.[1] ?? text).replace(/^\[|\]$/g, ""), port: Number(match?.[2] ?? 502) };
}

function tcpOf(text: string): string {
  const { host, port } = endpoint(text);
  return `{ host: ${JSON.stringify(host)}, port: ${port} }`;
}

function hubText(folder: string, answers: Answers, passphraseFile: string): string {
  const { line, profile, profileFile, unit, intervalS, mqtt } = answers;
  const within = profileFile === undefined ? "" : relative(folder, profileFile);
  const path = within.startsWith("..") ? profileFile : within;
  const files =
    profileFile === undefined
      ? ""
      : `profiles:                           # files of meters that are not built in
  - ${JSON.stringify(path)}

`;
  const wire =
    "tcp" in line
      ? `    tcp: ${tcpOf(line.tcp)}`
      : `    # A path under /dev/serial/by-id stays the same after a reboot; /dev/ttyUSB0 may not.
    serial: { path: ${JSON.stringify(line.serial)}, baud: ${line.baud}, data_bits: 8, parity: ${line.parity}, stop_bits: 1 }`;
  return `# What this hub reads, and where it sends it. Check: ecp config check. After a change: ecp config apply, then restart.
# All keys: the schema hub.schema.json. Relative paths count from this file's folder.

wallet:
  folder: wallet                    # the process that holds the device key; nobody else needs to read this folder
  passphrase_file: ${JSON.stringify(passphraseFile)}
  seal_every_s: 60                  # one signed record covers a minute; 0 signs each reading by itself

${files}lines:                              # the wires that meters hang on
  - name: main
${wire}

meters:
  - name: house
    index: 0                        # its number in signed records: never change it, never give it to another meter
    line: main
    unit: ${unit}
    profile: ${profile}
    interval_s: ${`${intervalS}`.padEnd(20)}# on the clock's own multiples: 60 is the full minute, 900 the quarter hour
    # power_max_w: 43000            # what the connection can carry; more is marked, not booked
    # resolution_wh: 1000           # steps of the meter's energy registers, for the same
    # quantities: [active-energy-import, active-energy-export]

uplink:
  mqtt:
    url: ${JSON.stringify(mqtt)}
    # username: hub-1
    # password_file: mqtt.password  # mode 0600
    # own_broker: true              # the full node's own broker, which may read records: else they are encrypted to the node
`;
}

function nextSteps(folder: string, file: string, passphraseFile: string, did: string, made: boolean): string {
  const config = `--config ${shellWord(file)}`;
  const commands = [
    [`ecp read ${config}`, "does the meter answer?"],
    [`ecp enrol ${config} --out request.cose`, "take request.cose to the full node; there:"],
    ["ecp-node enrol request.cose --data DIR --out answer.cose", "bring answer.cose back; here:"],
    [`ecp pin answer.cose ${config}`, "believe that full node's receipts"],
    [`ecp run ${config}`, "wallet and agent; 'ecp status' tells how it goes"],
  ] as const;
  const steps = commands.map(([command, why]) => `  ${command}\n      ${why}`).join("\n");
  return `A hub is set up in ${folder}
  its name    ${did}
  settings    ${file}
  passphrase  ${passphraseFile}${made ? "\n              (random, mode 0600; copy it elsewhere: without it the key is lost)" : ""}
  wallet      ${join(folder, "wallet")}

Next:
${steps}
`;
}
