/** ecp lora provision: writes the keys of OTAA and the region into a LoRaWAN modem. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { DriverError } from "../drivers/failure.ts";
import { createLoraModem, factoryBauds, type ModemFamily, modemFamilies } from "../drivers/lora/modem.ts";
import { modemBauds, searchModem } from "../drivers/lora/modem-search.ts";
import { type RegionName, regionNames } from "../drivers/lora/region.ts";
import { openSerialPort } from "../drivers/serial/serial-port.ts";
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { jsonOption } from "./hub-options.ts";
import { systemLoraTiming } from "./lora-timing.ts";
import { readPassword } from "./password-file.ts";
import { shellWord } from "./shell-word.ts";

const name = "ecp lora provision";
const baudMin = 1_200;
const baudMax = 921_600;

export const hubLoraProvision: Command = {
  summary: "write region and keys (OTAA) into a LoRaWAN modem",
  usage: `Usage: ecp lora provision --port PATH --region ${regionNames.join("|")} --join-eui HEX [--dev-eui HEX] --app-key-file FILE|-
                          [--family ${modemFamilies.join("|")}] [--baud N] [--sub-band 1-8] [--json]

Writes the region, the EUIs and the AppKey into the modem, reads the EUIs back, and resets it. Without --family the modem is asked what it
is. Without --dev-eui it keeps the one that it came with. The same EUIs and key are registered at the network server (docs/lorawan.md).
--sub-band      US915 and AU915: the eight channels that the gateways listen to (The Things Network: 2); without it all 64 are tried
--app-key-file  a file with 32 hexadecimal digits that only its owner may read; - reads them from standard input. The key is
                shown nowhere and kept nowhere but in the modem: delete the file when the server has the key as well.

A port that the agent has open is busy: stop 'ecp run' first. Exit status 1 where the modem refuses, 69 where there is none.`,

  async run(args) {
    const { values } = parseCommand(
      name,
      args,
      {
        ...jsonOption,
        port: { type: "string" },
        family: { type: "string" },
        baud: { type: "string" },
        "sub-band": { type: "string" },
        region: { type: "string" },
        "join-eui": { type: "string" },
        "dev-eui": { type: "string" },
        "app-key-file": { type: "string" },
      },
      [],
    );
    const given = <T extends string>(flag: string, text: string | undefined, of?: readonly T[]): T => {
      if (text === undefined) throw usageError(name, `--${flag} is missing`);
      if (of !== undefined && !of.includes(text as T))
        throw usageError(name, `--${flag} ${text}; one of ${of.join(", ")} was expected`);
      return text as T;
    };
    const path = resolve(given("port", values.port));
    const region = given<RegionName>("region", values.region, regionNames);
    const joinEui = hex("join-eui", given("join-eui", values["join-eui"]), 16);
    const devEui = values["dev-eui"] === undefined ? undefined : hex("dev-eui", values["dev-eui"], 16);
    const family = values.family === undefined ? undefined : given<ModemFamily>("family", values.family, modemFamilies);
    const baud = values.baud === undefined ? undefined : baudOf(values.baud);
    const subBand = values["sub-band"] === undefined ? undefined : subBandOf(values["sub-band"], region);
    const appKey = appKeyOf(given("app-key-file", values["app-key-file"]));
    const at = await placeOf(path, family, baud);
    const modem = createLoraModem({
      ...{ family: at.family, region, timing: systemLoraTiming },
      openTransport: () => openSerialPort({ path, baud: at.baud }),
    });
    try {
      const written = await modem.provision(
        { joinEui, appKey, ...(devEui !== undefined && { devEui }), ...(subBand !== undefined && { subBand }) },
        region,
      );
      const { firmware } = modem;
      const result = { port: path, ...at, firmware, region, devEui: written.devEui, joinEui };
      process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : text(result));
      return exit.ok;
    } catch (error) {
      throw failure(error, path);
    } finally {
      await modem.close();
    }
  },
};

interface Place {
  readonly family: ModemFamily;
  readonly baud: number;
}

/** Family and speed as they are given, or as the modem says. */
async function placeOf(path: string, family: ModemFamily | undefined, baud: number | undefined): Promise<Place> {
  if (family !== undefined) return { family, baud: baud ?? factoryBauds[family] };
  const { modem, remarks, error } = await searchModem({
    openAt: (speed) => openSerialPort({ path, baud: speed }),
    bauds: baud === undefined ? modemBauds : [baud],
    timing: systemLoraTiming,
  });
  if (modem !== undefined) return modem;
  if (error !== undefined) throw failure(error, path);
  throw new CommandError(exit.unavailable, {
    expected: "a LoRaWAN modem that says what it is",
    got: remarks[0] ?? `no answer at ${baud ?? modemBauds.join(", ")} 8N1`,
    where: path,
    todo: "check the port and the modem's power; a modem at another speed: --baud; one that says it in other words: --family",
  });
}

function failure(error: unknown, path: string): unknown {
  if (!(error instanceof DriverError)) return error;
  const isPort = error.code.startsWith("port-") || error.code === "timeout";
  return new CommandError(isPort ? exit.unavailable : exit.failed, {
    expected: "a LoRaWAN modem that takes region and keys",
    got: error.message,
    where: path,
    todo: "ecp scan --lora shows which modems are there; the command can be run again",
  });
}

/** The file's or standard input's digits; no error shows any of them. */
function appKeyOf(file: string): string {
  const digits = (file === "-" ? readFileSync(0, "utf8") : readPassword(file, "the AppKey")).replace(/[\s:]/g, "");
  if (/^[0-9a-f]{32}$/i.test(digits)) return digits.toLowerCase();
  throw new CommandError(exit.badData, {
    expected: "an AppKey: 32 hexadecimal digits, and nothing else",
    got: `${digits.length} characters that are no such key`,
    where: file === "-" ? "standard input" : file,
    todo: "openssl rand -hex 16 makes a key; the network server gets the same",
  });
}

function hex(flag: string, given: string, digits: number): string {
  const plain = given.replace(/[:-]/g, "").toLowerCase();
  if (new RegExp(`^[0-9a-f]{${digits}}$`).test(plain)) return plain;
  throw usageError(name, `--${flag} ${given}; ${digits} hexadecimal digits were expected`);
}

function baudOf(given: string): number {
  const baud = /^\d{4,6}$/.test(given) ? Number(given) : 0;
  if (baud < baudMin || baud > baudMax)
    throw usageError(name, `--baud ${given}; an integer from ${baudMin} to ${baudMax} was expected`);
  return baud;
}

function subBandOf(given: string, region: RegionName): number {
  if (region !== "US915" && region !== "AU915") throw usageError(name, `--sub-band with ${region}, which has none`);
  if (/^[1-8]$/.test(given)) return Number(given);
  throw usageError(name, `--sub-band ${given}; 1 to 8 was expected`);
}

interface Provisioned extends Place {
  readonly port: string;
  readonly firmware: string;
  readonly region: RegionName;
  readonly devEui: string;
  readonly joinEui: string;
}

function text({ port, family, baud, firmware, region, devEui, joinEui }: Provisioned): string {
  const speed = baud === factoryBauds[family] ? "" : `, baud: ${baud}`;
  return `${port}: ${family} modem, ${firmware}
  region   ${region}
  DevEUI   ${devEui}
  JoinEUI  ${joinEui}
  AppKey   written
Next: register the device at the network server with these EUIs and the same AppKey, as OTAA, class A, LoRaWAN 1.0.x (docs/lorawan.md),
and put the modem into hub.yaml:
  uplink:
    lora:
      modem: { path: ${shellWord(port)}, family: ${family}${speed} }
      region: ${region}
At the full node: ecp-node lorawan bind, or ecp-node enrol with --dev-eui ${devEui}
`;
}
