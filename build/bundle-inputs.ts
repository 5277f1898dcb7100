// What went into a bundle, read off esbuild's list of input files.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";

/** The only files the wallet's bundle may be made of: the key's process has no code that is not needed for it. */
const walletInputs =
  /^(wallet\/|platform\/|protocol\/|cli\/ecp-wallet[^/]*\.ts$|node_modules\/(cbor-x|@noble\/[^/]+)\/|left-out:cbor-extract$)/;

/** The inputs that do not belong in the wallet's bundle. */
export function foreignInputs(inputs: readonly string[]): string[] {
  return inputs.filter((input) => !walletInputs.test(input));
}

/** The licence of each npm package among the inputs, as their terms demand of whoever hands the bundle on. */
export function licenceTexts(root: string, inputs: readonly string[]): string {
  const folders = new Set<string>();
  for (const input of inputs) {
    const found = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (found?.[1] !== undefined) folders.add(found[1]);
  }
  const parts: string[] = [];
  for (const folder of [...folders].sort()) {
    const { name, version, license } = JSON.parse(readFileSync(path.join(root, folder, "package.json"), "utf8"));
    const file = readdirSync(path.join(root, folder)).find((entry) => /^licen[cs]e/i.test(entry));
    const text =
      file === undefined ? `Licence: ${license}` : readFileSync(path.join(root, folder, file), "utf8").trim();
    parts.push(`${name} ${version} (${license})\n\n${text}\n`);
  }
  const own = path.join(root, "LICENSE");
  const head = existsSync(own) ? readFileSync(own, "utf8") : "";
  return `${head}\n${"-".repeat(79)}\nThe bundles hold parts of these packages:\n\n${parts.join(`\n${"-".repeat(79)}\n\n`)}`;
}
