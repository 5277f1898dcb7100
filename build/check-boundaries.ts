// Who may import whom: the rows of the house, checked from an allow list. What is not listed is refused: a new folder, a new npm package,
// an import that is not a literal. A check that read fewer modules than git knows has failed.
import { existsSync, readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import path from "node:path";
import ts from "typescript";
import { filesKnownToGit, filesOnDisk } from "./repository-files.ts";

interface FolderRule {
  /** Other folders whose modules it may import; its own are always allowed. */
  readonly imports: readonly string[];
  /** Which of Node's own modules: all but the listed ones, or none at all. */
  readonly node: { readonly except: readonly string[] } | "none";
}

const anyNode = { except: [] };

/** What would give the process that holds the key a way out: it speaks over one Unix socket (node:net) and nothing else. */
const network = ["http", "https", "http2", "tls", "dgram", "dns", "dns/promises", "inspector", "inspector/promises"];

const product = ["agent", "wallet", "fullnode", "simulator", "drivers", "platform", "protocol"];

const rules: Readonly<Record<string, FolderRule>> = {
  protocol: { imports: [], node: "none" },
  platform: { imports: [], node: anyNode },
  drivers: { imports: ["platform", "protocol"], node: anyNode },
  agent: { imports: ["drivers", "platform", "protocol"], node: anyNode },
  wallet: { imports: ["platform", "protocol"], node: { except: [...network, "sqlite"] } },
  fullnode: { imports: ["platform", "protocol"], node: anyNode },
  simulator: { imports: ["drivers", "platform", "protocol"], node: anyNode },
  cli: { imports: product, node: anyNode },
  build: { imports: [], node: anyNode },
  test: { imports: [...product, "cli", "build", "bench"], node: anyNode },
  bench: { imports: [...product, "cli", "test"], node: anyNode },
};

/** The wallet's entry is part of the process that holds the key, so it gets the wallet's rule and none of cli/'s packages. */
const walletEntry = /^cli\/ecp-wallet[^/]*\.ts$/;
const walletEntryRule: FolderRule = {
  imports: ["wallet", "platform", "protocol"],
  node: { except: [...network, "sqlite"] },
};

/** What its `open()` returns signals every process when destroyed, so it stays behind one wrapper. */
const ptyPackage = /^@lydell\/node-pty(-|$)/;
const ptyWrapper = /^simulator\/pty[^/]*\.ts$/;

const packageList = "docs/decisions/packages.md";
const moduleName = /\.(ts|mts|cts|js|mjs|cjs)$/;

export interface BoundaryReport {
  /** How many modules were read. */
  readonly modules: number;
  readonly imports: number;
  readonly problems: readonly string[];
}

/** Checks the modules among `files` (paths relative to `root`) and the packages of package.json. */
export function checkBoundaries(root: string, files: readonly string[]): BoundaryReport {
  const problems: string[] = [];
  const packages = readPackages(root, problems);
  const known = new Set(files);
  const modules = files.filter((file) => moduleName.test(file));
  let imports = 0;
  let typescriptModules = 0;
  for (const file of modules) {
    const text = readFileSync(path.join(root, file), "utf8");
    if (file.endsWith(".ts")) typescriptModules++;
    const folder = folderOf(file);
    const rule = walletEntry.test(file) ? walletEntryRule : rules[folder];
    if (rule === undefined) {
      problems.push(
        `${file}: the folder ${folder}/ is not on the list of build/check-boundaries.ts: say there what it may import`,
      );
      continue;
    }
    const { importedFiles } = ts.preProcessFile(text, true, true);
    for (const { fileName: specifier } of importedFiles) {
      imports++;
      const problem = importProblem(file, folder, rule, specifier, known, packages);
      if (problem !== null) problems.push(`${file}: ${problem}`);
    }
    if (product.includes(folder) || folder === "cli") problems.push(...unreadableImports(file, text));
    if (folder === "protocol") problems.push(...impurities(file, text));
  }
  if (typescriptModules === 0) problems.push("no .ts file was found: the check checked nothing");
  return { modules: modules.length, imports, problems };
}

function folderOf(file: string): string {
  // The one module at the top is the bundler's configuration.
  return file.includes("/") ? file.slice(0, file.indexOf("/")) : "build";
}

function importProblem(
  file: string,
  folder: string,
  rule: FolderRule,
  specifier: string,
  known: ReadonlySet<string>,
  packages: ReadonlyMap<string, readonly string[]>,
): string | null {
  if (specifier.startsWith(".")) {
    const target = path.posix.join(path.posix.dirname(file), specifier);
    if (target.startsWith("../")) return `imports ${specifier}, which is outside the project`;
    if (!known.has(target)) return `imports ${specifier}, but there is no file ${target}`;
    return folderProblem(file, folder, rule, target);
  }
  if (isBuiltin(specifier)) {
    const name = specifier.replace(/^node:/, "");
    if (rule.node === "none") return `imports ${specifier}: ${folder}/ is pure (no I/O, clock or randomness)`;
    if (rule.node.except.includes(name)) return `imports ${specifier}: the wallet has no network but its Unix socket`;
    return null;
  }
  const name = packageOf(specifier);
  if (ptyPackage.test(name)) {
    return ptyWrapper.test(file)
      ? null
      : `imports ${specifier}: only simulator/pty*.ts may, since its destroy() and kill() signal every process`;
  }
  const folders = packages.get(name);
  if (folders === undefined) return `imports ${specifier}: a package with no line in ${packageList}`;
  if (folder === "test" || folder === "bench") return null;
  if (walletEntry.test(file) || !folders.includes(folder)) {
    return `imports ${specifier}: ${packageList} lists ${name} for ${folders.join(", ") || "no folder"}, not for ${walletEntry.test(file) ? "the wallet's entry" : folder}`;
  }
  return null;
}

function folderProblem(file: string, folder: string, rule: FolderRule, target: string): string | null {
  const other = folderOf(target);
  if (walletEntry.test(file) && other === "cli")
    return walletEntry.test(target) ? null : `imports ${target}: the wallet's entry may not import other commands`;
  if (other !== folder)
    return rule.imports.includes(other) ? null : `imports ${target}: ${folder}/ may not import ${other}/`;
  if (folder !== "drivers") return null;
  const part = driverPart(file);
  const otherPart = driverPart(target);
  if (otherPart === null || otherPart === part) return null;
  return part === null
    ? `imports ${target}: what all drivers share may not depend on one of them`
    : `imports ${target}: drivers/${part}/ may not import drivers/${otherPart}/`;
}

/** The driver a file belongs to, or null for what lies at the top of drivers/ and is shared by all. */
function driverPart(file: string): string | null {
  const parts = file.split("/");
  return parts.length > 2 ? (parts[1] ?? null) : null;
}

function packageOf(specifier: string): string {
  return specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
}

/** Imports whose target cannot be read off the source would pass every rule above unseen. */
function unreadableImports(file: string, text: string): string[] {
  const problems: string[] = [];
  visit(file, text, (node, line) => {
    if (
      ts.isCallExpression(node) &&
      node.expression.kind === ts.SyntaxKind.ImportKeyword &&
      !ts.isStringLiteral(node.arguments[0]!)
    ) {
      problems.push(`${file}:${line}: import() of something other than a literal`);
    }
    if (ts.isIdentifier(node) && (node.text === "createRequire" || node.text === "require") && !ptyWrapper.test(file)) {
      problems.push(`${file}:${line}: ${node.text}: use an import, which can be checked`);
    }
  });
  return problems;
}

/** `"types": []` keeps Node and the DOM out of protocol/, but the language itself has a clock and a source of randomness. */
function impurities(file: string, text: string): string[] {
  const problems: string[] = [];
  visit(file, text, (node, line) => {
    if (!ts.isIdentifier(node)) return;
    const parent = node.parent;
    const property = ts.isPropertyAccessExpression(parent) && parent.expression === node ? parent.name.text : null;
    if (node.text === "Math" && property === "random")
      problems.push(`${file}:${line}: Math.random: randomness is an argument`);
    const isMember = ts.isPropertyAccessExpression(parent) && parent.name === node;
    if (node.text === "Date" && property !== "UTC" && !isMember)
      problems.push(`${file}:${line}: Date: time is an argument`);
  });
  return problems;
}

function visit(file: string, text: string, look: (node: ts.Node, line: number) => void): void {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
  const walk = (node: ts.Node): void => {
    look(node, source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1);
    ts.forEachChild(node, walk);
  };
  walk(source);
}

/**
 * Reads the table of packages: `| name | folders that may import it | reason |`. It and package.json must name the same ones, so that a
 * new package comes with its reason.
 */
function readPackages(root: string, problems: string[]): Map<string, readonly string[]> {
  const packages = new Map<string, readonly string[]>();
  const file = path.join(root, packageList);
  const text = existsSync(file) ? readFileSync(file, "utf8") : "";
  for (const row of text.matchAll(/^\| `([^`]+)` *\|([^|]*)\|([^|]*)\|$/gm)) {
    const [, name, folders, reason] = row;
    if (name === undefined || folders === undefined || (reason ?? "").trim().length < 10) {
      problems.push(`${packageList}: ${name}: expected a reason in the third column`);
      continue;
    }
    packages.set(
      name,
      folders
        .split(",")
        .map((folder) => folder.trim())
        .filter((folder) => folder !== "" && folder !== "–"),
    );
  }
  for (const [name, folders] of packages) {
    for (const folder of folders) {
      if (rules[folder] === undefined) problems.push(`${packageList}: ${name}: there is no folder ${folder}`);
      if (folder === "wallet" && !name.startsWith("@noble/"))
        problems.push(`${packageList}: ${name}: the wallet has no package but @noble/*`);
      if (folder === "platform") problems.push(`${packageList}: ${name}: platform/ imports only Node's own modules`);
      if (folder === "protocol" && name !== "cbor-x" && !name.startsWith("@noble/")) {
        problems.push(`${packageList}: ${name}: protocol/ has no package but cbor-x and @noble/*`);
      }
    }
  }
  const manifest = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
  const installed = Object.keys({
    ...manifest.dependencies,
    ...manifest.optionalDependencies,
    ...manifest.devDependencies,
  });
  for (const name of installed) {
    if (!packages.has(name)) problems.push(`package.json: ${name}: expected a line with its reason in ${packageList}`);
  }
  for (const name of packages.keys()) {
    if (!installed.includes(name)) problems.push(`${packageList}: ${name} is not in package.json`);
  }
  return packages;
}

if (import.meta.main) {
  const root = path.resolve(import.meta.dirname, "..");
  const known = filesKnownToGit(root);
  const { modules, imports, problems } = checkBoundaries(root, filesOnDisk(root));
  const expected = known?.filter((file) => moduleName.test(file)).length ?? 0;
  for (const problem of problems) console.error(problem);
  if (modules < expected) console.error(`read ${modules} modules, but git knows ${expected}`);
  const comparison = known === null ? "no git: not compared with its count" : `git knows ${expected}`;
  console.log(`boundaries: ${modules} modules, ${imports} imports (${comparison}), ${problems.length} problems`);
  if (problems.length > 0 || modules < expected) process.exitCode = 1;
}
