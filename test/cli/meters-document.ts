/** docs/meters.md, from the profiles. Run as a program it writes the page. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { MeterProfile } from "../../drivers/modbus/profile.ts";
import { meterProfiles } from "../../drivers/modbus/profile-catalogue.ts";
import { quantityOfCode } from "../../protocol/quantity.ts";

export const metersPage: string = join(import.meta.dirname, "..", "..", "docs", "meters.md");

const evidenceText = {
  maker: "the maker's document",
  secondary: "secondary sources; compare the values with the meter's display before you rely on them",
} as const;

function head(): string {
  const rows = meterProfiles.map(
    ({ id, make, models, lines, evidence }) =>
      `| [\`${id}\`](#${id}) | ${make} | ${models.join(", ")} | ${lines.map((line) => (line === "rtu" ? "RTU" : "TCP")).join(", ")} | ${evidence} |`,
  );
  return `# Meters

Written from the profiles in \`drivers/modbus/\` by \`node test/cli/meters-document.ts\`; do not edit it. A meter that is
not here can be added without code: [adding-a-meter.md](adding-a-meter.md).

"Evidence" says what a table rests on: \`maker\` – the maker's own document; \`secondary\` – what others have written of the meter. No
table was compared with a meter on the bench. Quantities are given as integers of the unit named in
[protocol/README.md](../protocol/README.md); what a meter has beside them (line-to-line voltages, harmonics, energies of single
phases, counters that can be reset) is not read.

A register that only rises is passed on as the meter shows it. Where it falls, because it was reset, began anew after its
largest value or was read as a transient zero, the wallet seals the row with status M, and nothing is booked for it. A
value that cannot be – a frequency of 500 Hz, a number that is none – makes a reading with a status and no values.

| profile | make | models | lines | evidence |
|---|---|---|---|---|
${rows.join("\n")}
`;
}

function section(profile: MeterProfile): string {
  const { id, make, models, evidence, documents, notes, defaultCodes, factory, modes } = profile;
  const lines = [
    `## ${id}`,
    "",
    `${make}: ${models.join(", ")}.`,
    "",
    `From ${evidenceText[evidence]}:`,
    ...documents.map((document) => `- ${document}`),
    "",
    ...notes.map((note) => `- ${note}`),
    ...modes.map(
      ({ name, remedy, accepted, meanings }) =>
        `- Setting "${name}": ${accepted.map((raw) => meanings.find((item) => item.raw === raw)?.means ?? raw).join(" or ")} is needed; otherwise ${remedy}.`,
    ),
    `- ${asked(profile)}`,
    ...(profile.kind === "registers"
      ? [
          `- Factory settings: unit ${factory.unit}, ${factory.bauds[0]} baud, parity ${factory.parities[0]}, ${factory.stopBits} stop bit${factory.stopBits === 1 ? "" : "s"}.`,
        ]
      : []),
    "",
    "| quantity | register | type | read unless told otherwise |",
    "|---|---|---|---|",
    ...profile.codes.map((code) => row(profile, code, defaultCodes.includes(code))),
    "",
  ];
  return lines.join("\n");
}

function asked({
  maxRegistersPerRequest: max,
  fallbackRegistersPerRequest: fallback,
  gapMs,
  timeoutMs,
  countStep,
}: MeterProfile): string {
  const after = fallback === undefined ? "" : ` (${fallback} where it refuses them)`;
  const even = countStep === 1 ? "" : `, addresses and counts in steps of ${countStep}`;
  return `Asked for up to ${max} registers at once${after}${even}; ${gapMs} ms before each request, ${timeoutMs} ms for an answer.`;
}

function row({ registers }: MeterProfile, code: number, isDefault: boolean): string {
  const register = registers.find((item) => item.code === code);
  const name = quantityOfCode(code)?.name ?? `${code}`;
  const optional = register?.isOptional ? ", where the meter has it" : "";
  const cells = register
    ? [register.source, `${register.type}${register.sign.endsWith("part") ? `, ${register.sign}` : ""}`]
    : ["found on the device", ""];
  return `| ${name} | ${cells.join(" | ")} | ${isDefault ? `yes${optional}` : `no${optional}`} |`;
}

export function metersDocument(): string {
  return `${[head(), ...meterProfiles.map(section)].join("\n").trimEnd()}\n`;
}

if (import.meta.main) writeFileSync(metersPage, metersDocument());
