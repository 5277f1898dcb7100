/** The options of a simulated LoRaWAN: of `ecp-demo simulate lora`, and those that the demo hands on to it. */
import { modemFamilies } from "../drivers/lora/modem.ts";
import { regionNames } from "../drivers/lora/region.ts";
import { usableDataRates } from "../simulator/lora-end-device.ts";
import { simulatedDevice } from "../simulator/simulated-identities.ts";
import type { SimulatedLoraOptions } from "../simulator/simulated-lora.ts";
import { parseCommand, usageError } from "./command.ts";

export const radioFaults = "late:MS, twice, no-join, adr:SECONDS, reset:SECONDS, outage:SECONDS";
const servers = ["chirpstack", "tts"] as const;

export interface RadioArguments {
  readonly options: SimulatedLoraOptions;
  readonly family: SimulatedLoraOptions["family"];
  readonly server: SimulatedLoraOptions["server"];
  readonly faults: readonly RadioFault[];
  readonly json: boolean;
  readonly exitsWithParent: boolean;
}

/** @throws CommandError in the name of `program` */
export function parseRadio(program: string, args: readonly string[]): RadioArguments {
  const { values } = parseCommand(
    program,
    args,
    {
      link: { type: "string" },
      family: { type: "string", default: "rui3" },
      region: { type: "string", default: "EU868" },
      dr: { type: "string" },
      server: { type: "string", default: "chirpstack" },
      listen: { type: "string", default: "127.0.0.1:0" },
      udp: { type: "string", default: "127.0.0.1:0" },
      gateways: { type: "string", default: "1" },
      loss: { type: "string", default: "0" },
      "loss-up": { type: "string" },
      "loss-down": { type: "string" },
      "dev-eui": { type: "string", default: simulatedDevice.devEui },
      "join-eui": { type: "string", default: simulatedDevice.joinEui },
      "app-key": { type: "string", default: simulatedDevice.appKey },
      unprovisioned: { type: "boolean", default: false },
      fault: { type: "string", multiple: true, default: [] },
      json: { type: "boolean", default: false },
      "exit-with-parent": { type: "boolean", default: false },
    },
    [],
  );
  const region = oneOf(program, "region", values.region, regionNames);
  const rates = usableDataRates(region);
  const dataRate = values.dr === undefined ? undefined : integer(program, "dr", values.dr, 0, 15);
  if (dataRate !== undefined && !rates.includes(dataRate))
    throw usageError(program, `--dr ${values.dr}: a LoRa data rate of ${region} was expected (${rates.join(", ")})`);
  const family = oneOf(program, "family", values.family, modemFamilies);
  const server = oneOf(program, "server", values.server, servers);
  return {
    family,
    server,
    faults: values.fault.map((text) => faultOf(program, text)),
    json: values.json,
    exitsWithParent: values["exit-with-parent"],
    options: {
      family,
      region,
      server,
      device: {
        devEui: hex(program, "dev-eui", values["dev-eui"], 16),
        joinEui: hex(program, "join-eui", values["join-eui"], 16),
        appKey: hex(program, "app-key", values["app-key"], 32),
        name: simulatedDevice.name,
      },
      broker: endpoint(program, "listen", values.listen),
      udp: endpoint(program, "udp", values.udp),
      gateways: integer(program, "gateways", values.gateways, 1, 16),
      lossUp: share(program, "loss-up", values["loss-up"] ?? values.loss),
      lossDown: share(program, "loss-down", values["loss-down"] ?? values.loss),
      hasKeys: !values.unprovisioned,
      ...(values.link !== undefined && { link: values.link }),
      ...(dataRate !== undefined && { dataRate }),
    },
  };
}

export type RadioFault =
  | { readonly kind: "late"; readonly ms: number }
  | { readonly kind: "twice" | "no-join" }
  | { readonly kind: "adr" | "reset" | "outage"; readonly everyMs: number };

function faultOf(program: string, text: string): RadioFault {
  const [kind = "", parameter = ""] = text.split(":");
  switch (kind) {
    case "late":
      return { kind, ms: integer(program, "fault", parameter, 0, 60_000) };
    case "twice":
    case "no-join":
      return { kind };
    case "adr":
    case "reset":
    case "outage":
      return { kind, everyMs: integer(program, "fault", parameter, 1, 86_400) * 1_000 };
    default:
      throw usageError(program, `--fault ${text}; one of ${radioFaults} was expected`);
  }
}

function oneOf<T extends string>(program: string, flag: string, text: string, known: readonly T[]): T {
  const found = known.find((value) => value === text);
  if (found === undefined) throw usageError(program, `--${flag} ${text}; ${known.join(", ")} was expected`);
  return found;
}

function integer(program: string, flag: string, text: string, min: number, max: number): number {
  if (/^\d{1,7}$/.test(text) && Number(text) >= min && Number(text) <= max) return Number(text);
  throw usageError(program, `--${flag} ${text}; an integer from ${min} to ${max} was expected`);
}

function share(program: string, flag: string, text: string): number {
  const number = Number(text);
  if (/^\d*\.?\d+$/.test(text) && number <= 1) return number;
  throw usageError(program, `--${flag} ${text}; a share from 0 to 1 was expected`);
}

/** Never in the message: one of them is a key. */
function hex(program: string, flag: string, text: string, digits: number): string {
  if (text.length === digits && /^[0-9a-f]+$/i.test(text)) return text.toLowerCase();
  throw usageError(program, `--${flag}: ${digits} hexadecimal digits were expected`);
}

function endpoint(program: string, flag: string, text: string): { host: string; port: number } {
  const match = /^(.*):(\d{1,5})$/.exec(text);
  if (!match || Number(match[2]) > 65_535) throw usageError(program, `--${flag} ${text}; HOST:PORT was expected`);
  return { host: match[1] || "127.0.0.1", port: Number(match[2]) };
}
