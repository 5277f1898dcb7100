/** Where this project's other programs are: beside the bundle, or in the checkout. */
import { realpathSync } from "node:fs";
import { dirname, join } from "node:path";

export type ProgramName = "ecp" | "ecp-wallet" | "ecp-node" | "ecp-demo";

/** Command and first arguments that start a program with the Node that runs this one. */
export function programCommand(name: ProgramName): { command: string; arguments: string[] } {
  const folder = dirname(realpathSync(process.argv[1] as string));
  // The define of esbuild.config.mjs: in a bundle the other bundles lie beside it.
  if (process.env.ECP_BUNDLED === "true")
    return { command: process.execPath, arguments: [join(folder, `${name}.cjs`)] };
  // The wallet always runs from its bundle: without a JIT, Node cannot run .ts.
  const file = name === "ecp-wallet" ? join(folder, "..", "dist", "ecp-wallet.cjs") : join(folder, `${name}.ts`);
  return { command: process.execPath, arguments: [file] };
}
