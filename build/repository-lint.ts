// The habits of the repository that no other tool checks: names, lengths, tests left switched off, reminders left in comments.
import { readFileSync } from "node:fs";
import path from "node:path";
import ts from "typescript";
import { filesKnownToGit, filesOnDisk } from "./repository-files.ts";

const lineCountMax = 450;
const source = /\.(ts|mts|cts|js|mjs|cjs)$/;
const text = /\.(ts|mts|cts|js|mjs|cjs|json|md|yaml|yml|sh|service|cddl|html|css)$/;
const written = (file: string): boolean => !/^(test\/(vectors|fixtures)\/|package-lock\.json$|LICENSE$)/.test(file);

/** Names that say nothing, so that anything ends up in them. */
const emptyNames = /^(utils?|helpers?|common|manager|misc|index)$/;
const kebabCase = /^[a-z0-9]+(-[a-z0-9]+)*$/;
const testCalls = ["test", "it", "describe", "suite"];
const reminder = /\b(TO[D]O|FIX[M]E)\b/;

/** Checks `files` (paths relative to `root`); each problem is one line that begins with the place. */
export function lintRepository(root: string, files: readonly string[]): string[] {
  const problems: string[] = [];
  const own = files.filter(written);
  if (!own.some((file) => source.test(file))) problems.push("no source file was found: the check checked nothing");
  for (const file of own) {
    if (source.test(file)) problems.push(...nameProblems(file));
    if (!text.test(file)) continue;
    const lines = readFileSync(path.join(root, file), "utf8").split("\n");
    lines.forEach((line, i) => {
      if (reminder.test(line)) problems.push(`${file}:${i + 1}: ${reminder.exec(line)?.[0]}: do it, or open an issue`);
    });
    if (!source.test(file)) continue;
    if (lines.length - 1 > lineCountMax)
      problems.push(`${file}: ${lines.length - 1} lines, more than ${lineCountMax}: take it apart`);
    problems.push(...syntaxProblems(file, lines.join("\n")));
  }
  return problems;
}

function nameProblems(file: string): string[] {
  const problems: string[] = [];
  const parts = file.split("/");
  const stem = parts.at(-1)!.split(".")[0]!;
  for (const part of [...parts.slice(0, -1), stem]) {
    if (emptyNames.test(part)) problems.push(`${file}: "${part}" says nothing: name what is in it`);
    if (!kebabCase.test(part)) problems.push(`${file}: "${part}": expected kebab-case`);
  }
  if (/^test\//.test(file) && /\.tests?\.|\.spec\./.test(file) && !file.endsWith(".test.ts")) {
    problems.push(`${file}: a test that is not named *.test.ts is not run`);
  }
  return problems;
}

function syntaxProblems(file: string, contents: string): string[] {
  const problems: string[] = [];
  const tree = ts.createSourceFile(file, contents, ts.ScriptTarget.Latest, true);
  const isTest = file.startsWith("test/");
  const touchesPty = /^simulator\/pty[^/]*\.ts$/.test(file) || /["']@lydell\/node-pty/.test(contents);
  const report = (node: ts.Node, problem: string): void => {
    problems.push(`${file}:${tree.getLineAndCharacterOfPosition(node.getStart(tree)).line + 1}: ${problem}`);
  };
  const look = (node: ts.Node): void => {
    if (ts.isPropertyAccessExpression(node) && isTest && ts.isIdentifier(node.expression)) {
      const isSwitch = ["only", "skip", "todo"].includes(node.name.text) && testCalls.includes(node.expression.text);
      if (isSwitch)
        report(
          node,
          `${node.expression.text}.${node.name.text}: a test is switched off; a condition goes into its options`,
        );
    }
    if (
      ts.isPropertyAssignment(node) &&
      isTest &&
      node.initializer.kind === ts.SyntaxKind.TrueKeyword &&
      isTestOption(node)
    ) {
      report(
        node,
        `${node.name.getText(tree)}: true: a test is switched off; give the condition, and the reason as text`,
      );
    }
    if (ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression)) {
      const { name, expression } = node.expression;
      // What node-pty's open() returns has pid -1: its destroy() and kill() send SIGHUP to every process of the machine.
      const isEnd = name.text === "destroy" || name.text === "kill";
      if (touchesPty && isEnd && !/(^|\.)#?(master|slave)$/.test(expression.getText(tree))) {
        report(
          node,
          `${expression.getText(tree)}.${name.text}(): only master.destroy() and slave.destroy() are safe on a pty`,
        );
      }
      const target = node.arguments[0];
      if (name.text === "kill" && target !== undefined && /^(-\s*\d+|0)$/.test(target.getText(tree))) {
        report(node, `kill(${target.getText(tree)}): signals a whole process group, or every process`);
      }
    }
    ts.forEachChild(node, look);
  };
  look(tree);
  for (const { fileName } of ts.preProcessFile(contents, true, true).importedFiles) {
    if (fileName.startsWith(".") && !/\.(ts|mts|json|cjs|mjs)$/.test(fileName))
      problems.push(`${file}: imports ${fileName}: expected the suffix .ts`);
  }
  return problems;
}

/** `only`, `skip` and `todo` mean something only in the options object of a test call. */
function isTestOption(node: ts.PropertyAssignment): boolean {
  if (!/^["']?(only|skip|todo)["']?$/.test(node.name.getText())) return false;
  const call = node.parent.parent;
  return ts.isCallExpression(call) && testCalls.includes(call.expression.getText());
}

if (import.meta.main) {
  const root = path.resolve(import.meta.dirname, "..");
  const files = filesKnownToGit(root) ?? filesOnDisk(root);
  const problems = lintRepository(root, files);
  for (const problem of problems) console.error(problem);
  console.log(`repository lint: ${files.length} files, ${problems.length} problems`);
  if (problems.length > 0) process.exitCode = 1;
}
