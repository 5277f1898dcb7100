/** ecp profile: the meters that are known, one of them as a file to begin with, and a file of one's own checked. */
import { Document, isMap, isScalar, isSeq, Scalar, visit } from "yaml";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { findMeterProfile, findProfileFile, meterProfiles } from "../drivers/modbus/profile-catalogue.ts";
import { quantityOfCode } from "../protocol/quantity.ts";
import { type Command, CommandError, exit, parseCommand } from "./command.ts";
import { readHubFile } from "./hub-configuration.ts";
import { jsonOption } from "./hub-options.ts";
import { readProfileFile } from "./profile-files.ts";
import { formatTable } from "./table.ts";

const evidenceWords = { maker: "maker's document", secondary: "secondary source" } as const;

export const hubProfileList: Command = {
  summary: "list the meters that can be read",
  usage: `Usage: ecp profile list [--config hub.yaml] [--json]

With --config also those of the files that hub.yaml names.`,

  async run(args) {
    const { values } = parseCommand("ecp profile list", args, { ...jsonOption, config: { type: "string" } }, []);
    const profiles = values.config === undefined ? meterProfiles : readHubFile(values.config).profiles;
    if (values.json) {
      for (const { id, make, models, lines, evidence, codes } of profiles)
        process.stdout.write(`${JSON.stringify({ id, make, models, lines, evidence, quantities: namesOf(codes) })}\n`);
      return exit.ok;
    }
    const columns = [
      { title: "profile" },
      { title: "make" },
      { title: "lines" },
      { title: "evidence" },
      { title: "models" },
    ] as const;
    const rows = profiles.map(({ id, make, models, lines, evidence }) => [
      ...[id, make, lines.join(" "), evidenceWords[evidence], models.join(", ")],
    ]);
    process.stdout.write(formatTable(columns, rows));
    return exit.ok;
  },
};

export const hubProfileShow: Command = {
  summary: "print a meter's profile as YAML, to begin one of your own with",
  usage: `Usage: ecp profile show NAME

Give the copy an id of its own, name the file under 'profiles' in hub.yaml, and check it: ecp profile check FILE.`,

  async run(args) {
    const { positionals } = parseCommand("ecp profile show", args, {}, ["NAME"]);
    const [name = ""] = positionals;
    const file = findProfileFile(name);
    if (file === undefined)
      throw new CommandError(exit.noInput, {
        expected: "a built-in profile with a table of registers",
        got: findMeterProfile(name) === undefined ? name : `${name}, whose registers are found on the device itself`,
        where: "the command line",
        todo: "ecp profile list",
      });
    process.stdout.write(yamlOf(file));
    return exit.ok;
  },
};

export const hubProfileCheck: Command = {
  summary: "check a profile's file",
  usage: `Usage: ecp profile check FILE [--json]

Reads no meter. 'ecp read --profile FILE …' does.`,

  async run(args) {
    const { values, positionals } = parseCommand("ecp profile check", args, jsonOption, ["FILE"]);
    const [path = ""] = positionals;
    const profile = readProfileFile(path);
    const { id, registers } = profile;
    if (findMeterProfile(id) !== undefined)
      throw new CommandError(exit.badConfiguration, {
        expected: "an id of its own",
        got: `${id}, which is the name of a built-in profile`,
        where: path,
        todo: "choose another id",
      });
    const quantities = namesOf(profile.codes);
    process.stdout.write(
      values.json
        ? `${JSON.stringify({ file: path, id, quantities, hints: hintsOf(profile) })}\n`
        : [`${path}: good. ${id}, ${registers.length} quantities.`, ...hintsOf(profile), ""].join("\n"),
    );
    return exit.ok;
  },
};

/** What is allowed, and worth a thought. */
function hintsOf({ serialNumbers, recognition, defaultCodes, modes }: MeterProfile): string[] {
  const hints: string[] = [];
  if (serialNumbers.length === 0) hints.push("No serial number: an exchanged meter is not noticed by it.");
  if (recognition.length === 0) hints.push("No recognition: 'ecp scan' finds the meter as unknown.");
  if (!defaultCodes.includes(2)) hints.push("active-energy-import is not read unless hub.yaml names it.");
  const unread = modes.filter(({ affects }) => !affects.some((code) => defaultCodes.includes(code)));
  for (const { name } of unread) hints.push(`The setting "${name}" affects nothing that is read unless named.`);
  return hints;
}

function namesOf(codes: readonly number[]): string[] {
  return codes.map((code) => quantityOfCode(code)?.name ?? `${code}`);
}

/** Blocks as blocks, the rows of tables on a line each, hexadecimal numbers as such. */
function yamlOf(file: object): string {
  const document = new Document(file);
  visit(document, {
    Scalar: (key, node) => {
      if (key === "key" || typeof node.value !== "string" || !/^0x[0-9A-F]{1,12}$/.test(node.value)) return undefined;
      const number = new Scalar(Number(node.value));
      number.format = "HEX";
      return number;
    },
    Seq: (_, list) => {
      for (const item of list.items) if (isMap(item)) item.flow = !item.items.some(({ value }) => isSeq(value));
      if (list.items.every(isScalar) && list.items.every(({ value }) => `${value}`.length < 24)) list.flow = true;
      return undefined;
    },
  });
  return document.toString({ lineWidth: 0, flowCollectionPadding: true });
}
