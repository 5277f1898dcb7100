/** Reads the dialogues of test/fixtures/lora (its README has their form). */
import { readFileSync } from "node:fs";
import { type ModemFamily, modemFamilies } from "../../../drivers/lora/modem.ts";

export interface RecordedDialogue {
  readonly family: ModemFamily;
  readonly name: string;
  /** The driver's questions, such as `send 20 3e64`. */
  readonly runs: readonly string[];
  readonly lines: readonly { readonly kind: ">" | "<" | "~"; readonly text: string }[];
  /** JSON of the last question's outcome, or the code of the error that it ends in. */
  readonly outcome: { readonly value: unknown } | { readonly error: string };
  readonly downlinks: readonly unknown[];
}

export const keys = {
  joinEui: "70b3d57ed0000001",
  devEui: "0101010101010101",
  appKey: "00112233445566778899aabbccddeeff",
};

export function readDialogues(): RecordedDialogue[] {
  return modemFamilies.flatMap((family) => {
    const text = readFileSync(new URL(`../../fixtures/lora/${family}.txt`, import.meta.url), "utf8");
    const blocks = text.split(/^case: /m).slice(1);
    return blocks.map((block) => readDialogue(family, block));
  });
}

function readDialogue(family: ModemFamily, block: string): RecordedDialogue {
  const [name = "", ...rows] = block.trim().split("\n");
  const lines: RecordedDialogue["lines"][number][] = [];
  const downlinks: unknown[] = [];
  let runs: string[] = [];
  let outcome: RecordedDialogue["outcome"] | undefined;
  for (const row of rows) {
    const kind = row[0];
    const value = row.replace(/^\w+: /, "");
    if (kind === ">" || kind === "<" || kind === "~") lines.push({ kind, text: row.slice(2).replaceAll("\\0", "\0") });
    else if (row.startsWith("run: ")) runs = value.split("; ");
    else if (row.startsWith("outcome: ")) outcome = { value: JSON.parse(value) };
    else if (row.startsWith("error: ")) outcome = { error: value };
    else if (row.startsWith("downlink: ")) downlinks.push(JSON.parse(value));
    else throw new Error(`${family}.txt, ${name}: what is "${row}"?`);
  }
  if (runs.length === 0 || outcome === undefined) throw new Error(`${family}.txt, ${name}: no run or no outcome`);
  return { family, name, runs, lines, outcome, downlinks };
}
