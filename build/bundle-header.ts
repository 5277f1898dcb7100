// What stands before and beside a bundle so that it finds a Node that can run it.

/** The oldest Node that runs the bundles: argon2id of node:crypto came with 24.7. */
export const nodeMin = { major: 24, minor: 7 } as const;

/** Exit status of sysexits.h for "something this program needs is not there". */
const exitUnavailable = 69;

/** Beside the bundles: the path of the Node that built them. It is no part of a bundle, whose digest names the software in each record. */
export const nodePathFile = "node.path";

/**
 * The first lines of a bundle. Any Node from 12 on must be able to read them, and the bundle below must parse there as well (the build's
 * target sees to that): only then can an old Node say what is wrong, or hand over to a newer one.
 */
export const bundleHeader = `#!/usr/bin/env node
"use strict";
var isTooOld = (function () {
  var own = process.versions.node.split(".");
  if (+own[0] > ${nodeMin.major} || (+own[0] === ${nodeMin.major} && +own[1] >= ${nodeMin.minor})) return false;
  var fs = require("fs");
  var path = require("path");
  var pathFile = path.join(__dirname, "${nodePathFile}");
  var places = [
    process.env.ECP_NODE,
    path.join(__dirname, "node"),
    fs.existsSync(pathFile) && fs.readFileSync(pathFile, "utf8").trim()
  ].filter(function (place) { return place && fs.existsSync(place); });
  // A Node that was handed over to and is too old itself must not hand over again.
  if (places.length === 0 || process.env.ECP_NODE_HANDED_OVER) {
    process.stderr.write(
      "expected: Node ${nodeMin.major}.${nodeMin.minor} or newer\\n     got: Node " + process.versions.node + " (" + process.execPath + ")\\n   where: " + __filename +
      "\\n what to do: install Node ${nodeMin.major}, or set ECP_NODE to its path, or put it beside this file under the name node\\n"
    );
    process.exit(${exitUnavailable});
  }
  var child = require("child_process").spawn(places[0], process.execArgv.concat([__filename], process.argv.slice(2)), {
    stdio: "inherit",
    env: Object.assign({}, process.env, { ECP_NODE_HANDED_OVER: "1" })
  });
  ["SIGINT", "SIGTERM", "SIGHUP"].forEach(function (signal) {
    process.on(signal, function () {
      // A Ctrl-C at a terminal reaches the child by itself.
      if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
    });
  });
  child.on("error", function (error) {
    process.stderr.write("could not start " + places[0] + ": " + error.message + "\\n");
    process.exit(${exitUnavailable});
  });
  child.on("exit", function (status, signal) {
    process.exit(signal === null ? status : 128 + require("os").constants.signals[signal]);
  });
  return true;
})();
if (isTooOld) return;
delete process.env.ECP_NODE_HANDED_OVER;
var importMetaUrl = require("url").pathToFileURL(__filename).href;
`;

/**
 * The launcher without an extension: a bundle started by the name `ecp` with the right Node, whatever the system has. It replaces
 * itself (exec), so that signals and the process id are those of the program. `firstLines` of shell come before all else.
 */
export function launcher(name: string, nodeFlags: readonly string[], firstLines: readonly string[] = []): string {
  const flags = nodeFlags.length === 0 ? "" : `${nodeFlags.join(" ")} `;
  return `#!/bin/sh
# Starts ${name}.cjs, which lies beside this file, with Node ${nodeMin.major}.${nodeMin.minor} or newer.
set -eu
${firstLines.map((line) => `${line}\n`).join("")}file=$0
while [ -L "$file" ]; do
  target=$(readlink "$file")
  case $target in
    /*) file=$target ;;
    *) file=$(dirname -- "$file")/$target ;;
  esac
done
here=$(CDPATH='' cd -- "$(dirname -- "$file")" && pwd -P)
for node in "\${ECP_NODE:-}" "$here/node" "$(cat "$here/${nodePathFile}" 2>/dev/null || true)"; do
  [ -n "$node" ] && [ -x "$node" ] && exec "$node" ${flags}"$here/${name}.cjs" "$@"
done
node=$(command -v node || true)
version=$([ -n "$node" ] && "$node" --version || echo none)
major=\${version#v}; major=\${major%%.*}
minor=\${version#*.}; minor=\${minor%%.*}
case $version in
  v*) if [ "$major" -gt ${nodeMin.major} ] || { [ "$major" -eq ${nodeMin.major} ] && [ "$minor" -ge ${nodeMin.minor} ]; }; then exec "$node" ${flags}"$here/${name}.cjs" "$@"; fi ;;
esac
echo "expected: Node ${nodeMin.major}.${nodeMin.minor} or newer" >&2
echo "     got: none in ECP_NODE or beside this file; in PATH: $version" >&2
echo "   where: $here/${name}" >&2
echo " what to do: install Node ${nodeMin.major}, or set ECP_NODE to its path, or put it beside this file under the name node" >&2
exit ${exitUnavailable}
`;
}
