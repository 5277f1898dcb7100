/** ecp statement: what a meter's registers showed at the ends of a period, signed by the wallet. */
import { contentTypes } from "../protocol/cose-sign1.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { decodeStatement } from "../protocol/statement.ts";
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { type Hub, readHubFile } from "./hub-configuration.ts";
import { configOption } from "./hub-options.ts";
import { withWallet } from "./hub-wallet.ts";
import { checkOutput, signedMessage, writeOutput } from "./output-file.ts";
import { shellWord } from "./shell-word.ts";
import { statementText } from "./statement-json.ts";
import { sha256 } from "./verification.ts";

const name = "ecp statement";

export const hubStatement: Command = {
  summary: "a period statement, signed by the device: stands, and what they rose by",
  usage: `Usage: ecp statement --meter NAME --from TIME --to TIME [--out statement.cose] [--config hub.yaml]

Asks the wallet (the running one, or one that is started for it) for a statement of what the meter's registers showed at the
ends of a period, out of what is sealed: a bill can be checked by it without the load curve. TIME is a day (2027-01-01:
midnight by this machine's time zone), a time with its zone (2027-01-01T00:00:00+01:00) or Unix seconds. Where the row at an
end failed, the last good one of ten slots before it counts; the statement says which. --out overwrites nothing but a statement.`,
  async run(args) {
    const options = {
      ...configOption,
      meter: { type: "string" },
      from: { type: "string" },
      to: { type: "string" },
      out: { type: "string", default: "statement.cose" },
    } as const;
    const { values } = parseCommand(name, args, options, []);
    if (values.meter === undefined) throw usageError(name, "no --meter NAME");
    const [fromS, toS] = [timeOf("from", values.from), timeOf("to", values.to)];
    if (fromS > toS) throw usageError(name, `--from ${values.from} lies behind --to ${values.to}`);
    const hub = readHubFile(values.config);
    const meter = meterNamed(hub, values.meter);
    const before = signedMessage(contentTypes.statement);
    checkOutput(values.out, before);
    const { statement, publicKey } = await withWallet(hub, async (wallet) => ({
      publicKey: (await wallet.hello()).publicKey,
      statement: await wallet.statement(meter.index, fromS, toS),
    }));
    writeOutput(values.out, statement, before);
    const { content } = decodeStatement(statement, sha256);
    process.stdout.write(
      `${values.out} is a statement over ${meter.name}\n${statementText(content)}` +
        `Check it anywhere: ecp verify ${shellWord(values.out)} --device ${didKeyOf(publicKey)}\n`,
    );
    return exit.ok;
  },
};

/** A meter of hub.yaml by its name. */
export function meterNamed(hub: Hub, wanted: string): Hub["configuration"]["meters"][number] {
  const { meters } = hub.configuration;
  const meter = meters.find((item) => item.name === wanted);
  if (meter) return meter;
  throw new CommandError(exit.usage, {
    expected: `one of the meters: ${meters.map((item) => item.name).join(", ")}`,
    got: wanted,
    where: hub.file,
    todo: "give the meter's name as hub.yaml has it",
  });
}

/** Unix seconds. */
function timeOf(flag: string, text: string | undefined): number {
  if (text === undefined) throw usageError(name, `no --${flag} TIME`);
  if (/^\d{1,10}$/.test(text)) return Number(text);
  const day = /^(\d{4})-(\d\d)-(\d\d)$/.exec(text);
  const withZone = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)$/.test(text);
  const ms = day ? midnightMs(day) : withZone ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(ms) && ms >= 0) return Math.floor(ms / 1_000);
  throw usageError(
    name,
    `--${flag} ${text}; a day such as 2027-01-01, a time with its zone, or Unix seconds were expected`,
  );
}

function midnightMs([, year, month, day]: RegExpExecArray): number {
  const date = new Date(Number(year), Number(month) - 1, Number(day));
  return date.getMonth() === Number(month) - 1 && date.getDate() === Number(day) ? date.getTime() : Number.NaN;
}
