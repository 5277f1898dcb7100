/** ecp init: a new hub's folder: hub.yaml, passphrase file, wallet with its key, policy. */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { findMeterProfile, meterProfiles } from "../drivers/modbus/profile-catalogue.ts";
import { listSerialPorts } from "../drivers/serial/serial-port-list.ts";
import { writeFileDurably } from "../platform/durable-file.ts";
import { emptyPolicy } from "../wallet/policy.ts";
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { hubOf } from "./hub-configuration.ts";
import { runWalletCommand, writePolicy } from "./hub-wallet.ts";
import { makeFolder } from "./output-file.ts";
import { ask, canAsk } from "./terminal-question.ts";

const passphraseRandomBytes = 24;

interface Answers {
  readonly line: { serial: string; baud: number; parity: string } | { tcp: string };
  readonly profile: string;
  readonly unit: number;
  readonly intervalS: number;
  readonly mqtt: string;
}

export const hubInit: Command = {
  summary: "set up a new hub: configuration, wallet, key",
  usage: `Usage: ecp init [--folder DIR] [--serial PATH [--baud N] [--parity none|even|odd] | --tcp HOST:PORT]
                [--profile NAME] [--unit N] [--interval SECONDS] [--mqtt URL] [--passphrase-file FILE] [--segments N]

Makes, in DIR (default: this folder), hub.yaml, a passphrase file of mode 0600 with a random passphrase (unless one is
given), and wallet/ with the device key and its journal of N MiB (default 64). Asks for what is not given when run at a
terminal. Nothing that is there is overwritten.

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
    const answers = await answersOf(values);
    const passphraseFile = values["passphrase-file"]
      ? resolve(values["passphrase-file"])
      : join(folder, "wallet.passphrase");
    const text = hubText(answers, values["passphrase-file"] ? passphraseFile : "wallet.passphrase");
    const hub = hubOf(file, text); // before anything is made: a wrong value ends here
    makeFolder(folder, 0o750);
    if (!values["passphrase-file"] && !existsSync(passphraseFile))
      writeFileDurably(passphraseFile, `${randomBytes(passphraseRandomBytes).toString("base64url")}\n`, 0o600);
    const segments = values.segments ? ["--segments", values.segments] : [];
    const wallet = hub.configuration.walletFolder;
    const did = runWalletCommand(["init", "--data", wallet, "--passphrase-file", passphraseFile, ...segments]);
    writePolicy(hub, { ...emptyPolicy, ...hub.policy });
    writeFileDurably(file, text, 0o640);
    process.stdout.write(nextSteps(folder, file, passphraseFile, did, values["passphrase-file"] === undefined));
    return exit.ok;
  },
};

function existing(path: string): CommandError {
  return new CommandError(exit.cannotCreate, {
    expected: "a folder without a hub",
    got: "one is there already; it was left as it is",
    where: path,
    todo: "change hub.yaml and run 'ecp config apply', or choose another --folder",
  });
}

type Values = Partial<Record<"serial" | "baud" | "parity" | "tcp" | "profile" | "unit" | "interval" | "mqtt", string>>;

async function answersOf(values: Values): Promise<Answers> {
  if (values.serial !== undefined && values.tcp !== undefined)
    throw usageError("ecp init", "--serial and --tcp together: a line is one of the two");
  const line = await lineOf(values);
  const names = meterProfiles.map((item) => item.id);
  const profile = await value(values.profile, "--profile", "Meter's profile", names[0] ?? "", (text) =>
    names.includes(text) ? undefined : `one of ${names.join(", ")}`,
  );
  const factory = findMeterProfile(profile)?.factory;
  const unit = await integer(
    values.unit,
    "--unit",
    "Modbus unit (address) of the meter",
    `${factory?.unit ?? 1}`,
    1,
    247,
  );
  const intervalS = await integer(values.interval, "--interval", "Seconds between readings", "60", 1, 86_400);
  const mqtt = await value(values.mqtt, "--mqtt", "The full node's broker", "mqtt://127.0.0.1:1883", (text) =>
    /^mqtts?:\/\/[^/@]+$/.test(text) ? undefined : "mqtt://host:port or mqtts://host:port",
  );
  return { line, profile, unit, intervalS, mqtt };
}

async function lineOf(values: Values): Promise<Answers["line"]> {
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
      (text) => (text === "" ? "a path such as /dev/serial/by-id/…, or HOST:PORT" : undefined),
    );
    if (!serial.startsWith("/") && serial.includes(":")) return { tcp: serial };
  }
  const baud = await integer(values.baud, "--baud", "Baud", "9600", 1_200, 115_200);
  const parities = ["none", "even", "odd"];
  const parity = await value(values.parity, "--parity", "Parity", "none", (text) =>
    parities.includes(text) ? undefined : "none, even or odd",
  );
  return { serial, baud, parity };
}

async function integer(
  given: string | undefined,
  flag: string,
  question: string,
  preset: string,
  min: number,
  max: number,
) {
  const text = await value(given, flag, question, preset, (answer) =>
    /^\d{1,6}$/.test(answer) && Number(answer) >= min && Number(answer) <= max
      ? undefined
      : `an integer from ${min} to ${max}`,
  );
  return Number(text);
}

/** What a flag gives, else what a person answers, else the preset. */
async function value(
  given: string | undefined,
  flag: string,
  question: string,
  preset: string,
  check: (text: string) => string | undefined,
): Promise<string> {
  if (given === undefined) return canAsk() ? ask(question, preset, check) : preset;
  const wrong = check(given);
  if (wrong !== undefined) throw usageError("ecp init", `${flag} ${given}: ${wrong} was expected`);
  return given;
}

function tcpOf(text: string): string {
  const match = /^(.+):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? text;
  return `{ host: ${JSON.stringify(host.replace(/^\[|\]$/g, ""))}, port: ${match?.[2] ?? 502} }`;
}

function hubText({ line, profile, unit, intervalS, mqtt }: Answers, passphraseFile: string): string {
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

lines:                              # the wires that meters hang on
  - name: main
${wire}

meters:
  - name: house
    index: 0                        # its number in signed records: never change it, never give it to another meter
    line: main
    unit: ${unit}
    profile: ${profile}
    interval_s: ${intervalS}                  # on the clock's own multiples: 60 is the full minute, 900 the quarter hour
    # power_max_w: 43000            # what the connection can carry; more is marked, not booked
    # quantities: [active-energy-import, active-energy-export]

uplink:
  mqtt:
    url: ${JSON.stringify(mqtt)}
    # username: hub-1
    # password_file: mqtt.password  # mode 0600
`;
}

function nextSteps(folder: string, file: string, passphraseFile: string, did: string, made: boolean): string {
  return `A hub is set up in ${folder}
  its name    ${did}
  settings    ${file}
  passphrase  ${passphraseFile}${made ? " (random, mode 0600; keep a copy elsewhere: without it the key is lost)" : ""}
  wallet      ${join(folder, "wallet")}

Next:
  ecp read  --config ${file}                     does the meter answer?
  ecp enrol --config ${file} --out request.cose  take this file to the full node: ecp-node enrol request.cose
  ecp pin answer.cose --config ${file}           its answer, brought back
  ecp run   --config ${file}                     wallet and agent; 'ecp status' tells how it goes
`;
}
