// `npm run bench -- NAME …` runs bench/NAME.ts, `npm run campaign -- NAME …` runs bench/campaign-NAME.ts, with the arguments that follow.
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";

const folder = path.resolve(import.meta.dirname, "../bench");
const [kind = "bench", name, ...args] = process.argv.slice(2);
const prefix = kind === "campaign" ? "campaign-" : "";

function names(): string[] {
  const modules = existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith(".ts")) : [];
  return modules
    .map((file) => file.slice(0, -".ts".length))
    .filter((module) => module.startsWith("campaign-") === (kind === "campaign"))
    .map((module) => module.slice(prefix.length));
}

if (name === undefined || !names().includes(name)) {
  const list = names().map((known) => `\n  npm run ${kind} -- ${known}`);
  console.error(
    `npm run ${kind}: expected a name, got ${name ?? "none"}; in ${folder} there are:${list.join("") || " none"}`,
  );
  process.exitCode = 64;
} else {
  const child = spawn(process.execPath, [path.join(folder, `${prefix}${name}.ts`), ...args], { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
  child.once("exit", (code) => {
    process.exitCode = code ?? 1;
  });
}
