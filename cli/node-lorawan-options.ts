/** The options of `ecp-node run` for LoRaWAN: which network server, where its broker is, whose frames. */
import { readFileSync } from "node:fs";
import { chirpStack, chirpStackApplicationForm } from "../fullnode/chirpstack.ts";
import type { LorawanOptions } from "../fullnode/lorawan-service.ts";
import type { BrokerAddress } from "../fullnode/mqtt-link.ts";
import { thingsStack, thingsStackApplicationForm } from "../fullnode/things-stack.ts";
import { CommandError, exit, systemCode, usageError } from "./command.ts";
import { readPassword } from "./password-file.ts";

const command = "ecp-node run";
const defaultPorts = { "mqtt:": 1883, "mqtts:": 8883 } as const;
/** A day and a few hours; a device that hears nothing for longer takes its link for dead. */
const receiptHoursMax = 24;

export const lorawanUsage = `[--lorawan chirpstack|tts --lorawan-broker mqtt[s]://HOST:PORT --lorawan-application ID
                     [--lorawan-user U --lorawan-password-file F] [--lorawan-ca-file F] [--lorawan-cert-file F --lorawan-key-file F]
                     [--lorawan-receipts each|HOURS]]`;

export const lorawanHelp = `--lorawan           takes records over LoRaWAN too, from ChirpStack v4 or The Things Stack v3, over their MQTT (docs/lorawan.md).
                    --lorawan-application: ChirpStack's application ID (a UUID); The Things Stack's APPLICATION@TENANT. Of the nodes on one
                    store one at a time takes frames. --lorawan-receipts: a receipt for each record (the default), or one in so many hours
                    (1 to ${receiptHoursMax}), which speaks of all before it, where downlinks are scarce; then hubs must
                    have the same hours as receipts_h in hub.yaml.`;

export const lorawanRunOptions = {
  lorawan: { type: "string" },
  "lorawan-broker": { type: "string" },
  "lorawan-application": { type: "string" },
  "lorawan-user": { type: "string" },
  "lorawan-password-file": { type: "string" },
  "lorawan-ca-file": { type: "string" },
  "lorawan-cert-file": { type: "string" },
  "lorawan-key-file": { type: "string" },
  "lorawan-receipts": { type: "string" },
} as const;

type Values = { readonly [K in keyof typeof lorawanRunOptions]?: string | undefined };

/** Nothing where --lorawan is not given. Throws CommandError. */
export function parseLorawan(values: Values): { readonly lorawan?: LorawanOptions } {
  const name = values.lorawan;
  if (name === undefined) {
    const alone = (Object.keys(lorawanRunOptions) as (keyof Values)[]).find((option) => values[option] !== undefined);
    if (alone) throw usageError(command, `--${alone} without --lorawan`);
    return {};
  }
  if (name !== "chirpstack" && name !== "tts")
    throw usageError(command, `--lorawan ${name}, which is neither chirpstack nor tts`);
  const application = values["lorawan-application"];
  if (application === undefined) throw usageError(command, "--lorawan without --lorawan-application");
  const [form, words] =
    name === "chirpstack"
      ? [chirpStackApplicationForm, "the ID of a ChirpStack application (a UUID in lower case)"]
      : [thingsStackApplicationForm, "APPLICATION@TENANT of The Things Stack"];
  if (!form.test(application)) throw usageError(command, `--lorawan-application ${application}, which is not ${words}`);
  if (name === "tts" && chirpStackApplicationForm.test(application))
    throw usageError(command, `--lorawan-application ${application}, which is not ${words} but of ChirpStack's form`);
  return {
    lorawan: {
      server: name === "chirpstack" ? chirpStack(application) : thingsStack(application),
      broker: parseBroker(values),
      receipts: parseReceipts(values["lorawan-receipts"]),
      lease: `lorawan/${name}/${application}`,
    },
  };
}

function parseReceipts(text: string | undefined): LorawanOptions["receipts"] {
  if (text === undefined || text === "each") return "each";
  const hours = /^[0-9]{1,2}$/.test(text) ? Number(text) : 0;
  if (hours < 1 || hours > receiptHoursMax)
    throw usageError(command, `--lorawan-receipts ${text}, which is neither each nor 1 to ${receiptHoursMax} hours`);
  return hours;
}

function parseBroker(values: Values): BrokerAddress {
  const text = values["lorawan-broker"];
  if (text === undefined) throw usageError(command, "--lorawan without --lorawan-broker");
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const protocol = url?.protocol;
  if (
    url === undefined ||
    (protocol !== "mqtt:" && protocol !== "mqtts:") ||
    url.hostname === "" ||
    !/^\/?$/.test(url.pathname)
  )
    throw usageError(
      command,
      `--lorawan-broker ${text.replace(/\/\/.*@/, "//")}, which is not mqtt://HOST:PORT or mqtts://HOST:PORT`,
    );
  if (url.username !== "" || url.password !== "")
    throw usageError(
      command,
      "a password on the command line, where others can see it: use --lorawan-user and --lorawan-password-file",
    );
  const username = values["lorawan-user"];
  const passwordFile = values["lorawan-password-file"];
  if (passwordFile !== undefined && username === undefined)
    throw usageError(command, "--lorawan-password-file without --lorawan-user: whose password it is");
  const files = { ca: values["lorawan-ca-file"], cert: values["lorawan-cert-file"], key: values["lorawan-key-file"] };
  const named = Object.entries(files).flatMap(([field, file]) => (file === undefined ? [] : [[field, file] as const]));
  if (named.length > 0 && protocol !== "mqtts:")
    throw usageError(command, `--lorawan-${named[0]?.[0]}-file without encryption: --lorawan-broker mqtts://…`);
  if ((files.cert === undefined) !== (files.key === undefined))
    throw usageError(command, "--lorawan-cert-file and --lorawan-key-file belong together");
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? defaultPorts[protocol] : Number(url.port),
    ...(username !== undefined && { username }),
    ...(passwordFile !== undefined && { password: readPassword(passwordFile, "the password or API key") }),
    ...(protocol === "mqtts:" && {
      tls: Object.fromEntries(named.map(([field, file]) => [field, readPem(`lorawan-${field}-file`, file)])),
    }),
  };
}

/** A file without PEM is taken by OpenSSL without a word where it is an authority's. */
function readPem(option: string, file: string): Buffer {
  try {
    const bytes = readFileSync(file);
    if (bytes.includes("-----BEGIN ")) return bytes;
    throw new CommandError(exit.badData, {
      expected: "a file in PEM",
      got: "one without '-----BEGIN'",
      where: `--${option} ${file}`,
      todo: "openssl x509 -inform der -in FILE -out FILE.pem turns a binary certificate into PEM",
    });
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
    throw new CommandError(exit.noInput, {
      expected: "a file in PEM",
      got: "no such file",
      where: `--${option} ${file}`,
      todo: "give the file's path",
    });
  }
}
