// Pre-script and launcher: `node build/run.cjs [--wallet] SCRIPT [ARGUMENT…]` runs SCRIPT with the project's own Node.
//
// Any Node from 14 on must be able to read this file, so it keeps to the language of 2015. Nothing is printed on stdout: that belongs
// to the script. In order: install the packages if they are not those of package-lock.json; with --wallet, build the wallet's bundle
// (the wallet never runs from .ts: under --jitless Node strips no types); run the script.
"use strict";

var childProcess = require("child_process");
var fs = require("fs");
var os = require("os");
var path = require("path");

var EXIT_UNAVAILABLE = 69; // EX_UNAVAILABLE of sysexits.h: something this program needs is not there
var NODE_MIN = [24, 7];
var LOCK_WAIT_MAX_MS = 15 * 60 * 1000;

var root = path.resolve(__dirname, "..");
var modules = path.join(root, "node_modules");

function say(text) {
  fs.writeSync(2, "ecp: " + text + "\n");
}

function fail(expected, got, where, todo) {
  say("expected: " + expected + "\n     got: " + got + "\n   where: " + where + "\n what to do: " + todo);
  process.exit(EXIT_UNAVAILABLE);
}

function readJson(file) {
  try {
    return JSON.parse(fs.readFileSync(file, "utf8"));
  } catch (_error) {
    return null;
  }
}

var foundNode = null;

/** The Node that runs the project: the packaged one (npm 10 does not link it into .bin, so by its path), else this one if new enough. */
function findNode() {
  if (foundNode === null) foundNode = lookForNode();
  return foundNode;
}

function lookForNode() {
  var packaged = path.join(modules, "node-linux-" + process.arch, "bin", "node");
  // A glibc executable does not start on a musl system, so its presence alone proves nothing.
  if (fs.existsSync(packaged) && childProcess.spawnSync(packaged, ["--version"], { stdio: "ignore" }).status === 0) {
    return packaged;
  }
  var own = process.versions.node.split(".");
  var isEnough = +own[0] > NODE_MIN[0] || (+own[0] === NODE_MIN[0] && +own[1] >= NODE_MIN[1]);
  return isEnough ? process.execPath : null;
}

/**
 * Whether node_modules holds what package-lock.json names. npm keeps its own account of what it installed, so contents are compared:
 * the times of files say nothing after a `git clone` or a `git checkout`.
 */
function isInstalled() {
  var wanted = readJson(path.join(root, "package-lock.json"));
  var found = readJson(path.join(modules, ".package-lock.json"));
  if (wanted === null || found === null) return false;
  return Object.keys(wanted.packages).every(function (name) {
    if (name.indexOf("node_modules/") !== 0) return true;
    var want = wanted.packages[name];
    var have = found.packages[name];
    if (have === undefined) return want.optional === true;
    return have.version === want.version && have.integrity === want.integrity;
  });
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Sleeps without an event loop, which nothing here has yet. */
function sleep(ms) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** Runs `work` while no other launcher of this folder installs; a lock whose owner has died is taken over. */
function withLock(work) {
  var lock = path.join(root, "dist", ".install-lock");
  var startedAtMs = Date.now();
  var hasSaid = false;
  fs.mkdirSync(path.dirname(lock), { recursive: true });
  for (;;) {
    try {
      fs.writeFileSync(lock, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    var owner = NaN;
    try {
      owner = parseInt(fs.readFileSync(lock, "utf8"), 10);
      // An empty lock is one whose owner is between creating and writing it, or died there.
      if (Number.isNaN(owner) && Date.now() - fs.statSync(lock).mtimeMs < 5000) owner = process.pid;
    } catch (_error) {
      continue;
    }
    if (Number.isNaN(owner) || !isAlive(owner)) {
      var aside = lock + "." + process.pid;
      try {
        fs.renameSync(lock, aside);
        // Between reading and renaming another launcher may have taken the lock over: then it gets it back.
        if (parseInt(fs.readFileSync(aside, "utf8"), 10) === owner || Number.isNaN(owner)) fs.unlinkSync(aside);
        else fs.renameSync(aside, lock);
      } catch (_error) {
        // Another launcher was quicker.
      }
      continue;
    }
    if (!hasSaid) say("another process (pid " + owner + ") is installing the packages; waiting for it");
    hasSaid = true;
    if (Date.now() - startedAtMs > LOCK_WAIT_MAX_MS) {
      fail(
        "the installation by process " + owner + " to end within 15 minutes",
        "it is still running",
        lock,
        "end that process, or remove the file if it is no installation"
      );
    }
    sleep(200);
  }
  try {
    return work();
  } finally {
    fs.unlinkSync(lock);
  }
}

function install() {
  say(fs.existsSync(modules) ? "package-lock.json has changed: npm ci …" : "first run: npm ci …");
  // --include wins over NODE_ENV=production and over an `omit` in the user's settings; the log level over that of `npm -s`.
  var args = ["ci", "--include=dev", "--include=optional", "--no-audit", "--no-fund", "--no-update-notifier"];
  args.push("--loglevel=error");
  var npm = process.env.npm_execpath || "";
  var isNpm = /npm-cli\.c?js$/.test(npm) && fs.existsSync(npm);
  var options = { cwd: root, stdio: ["ignore", 2, 2] };
  var result = isNpm
    ? childProcess.spawnSync(process.execPath, [npm].concat(args), options)
    : childProcess.spawnSync("npm", args, options);
  if (result.status === 0) return;
  var got = result.error ? result.error.message : "exit " + (result.status === null ? result.signal : result.status);
  fail(
    "`npm ci` to install the packages of package-lock.json",
    got + " (its own message stands above)",
    root,
    result.error && result.error.code === "ENOENT"
      ? "install npm 10 or newer, or start with `npm start`"
      : "connect to the network (or set `npm config set registry URL` to a mirror) and try again"
  );
}

function prepare() {
  if (isInstalled() && findNode() !== null) return;
  withLock(function () {
    if (!isInstalled() || findNode() === null) install();
  });
}

function requireNode() {
  var node = findNode();
  if (node !== null) return node;
  return fail(
    "Node " + NODE_MIN.join(".") + " or newer",
    "Node " + process.versions.node + ", and no working package node-linux-" + process.arch,
    modules,
    "on Linux x64 or arm64 with glibc: run `npm ci --include=optional`; elsewhere install Node 24 and start with it"
  );
}

function buildWallet(node) {
  var args = [path.join(root, "esbuild.config.mjs"), "--only", "ecp-wallet", "--quiet"];
  var result = childProcess.spawnSync(node, args, { cwd: root, stdio: ["ignore", 2, 2] });
  if (result.status === 0) return;
  say("the wallet's bundle could not be built (see above)");
  process.exit(result.status || EXIT_UNAVAILABLE);
}

/** Whether a Ctrl-C at the terminal reaches the child by itself, since both are in the terminal's foreground process group. */
function isForeground() {
  try {
    var fields = fs
      .readFileSync("/proc/self/stat", "utf8")
      .replace(/^.*\) /, "")
      .split(" ");
    return fields[2] === fields[5]; // pgrp and tpgid of proc(5)
  } catch (_error) {
    return Boolean(process.stdin.isTTY);
  }
}

function run(node, args) {
  var env = Object.assign({}, process.env);
  // What the script starts by the name `node` is this Node too.
  env.PATH = path.dirname(node) + path.delimiter + (env.PATH || "");
  var child;
  var lastAtMs = {};
  // Before the script is started: a signal that came between the two would end this process alone and leave the script.
  ["SIGINT", "SIGTERM", "SIGHUP"].forEach(function (signal) {
    process.on(signal, function () {
      if (signal === "SIGINT" && isForeground()) return;
      // npm sends on what the terminal has already sent: twice within a second is once.
      if (Date.now() - (lastAtMs[signal] || 0) < 1000) return;
      lastAtMs[signal] = Date.now();
      child.kill(signal);
    });
  });
  child = childProcess.spawn(node, args, { stdio: "inherit", env: env });
  child.on("error", function (error) {
    fail("to start " + node, error.message, root, "remove the folder node_modules and try again");
  });
  child.on("exit", function (status, signal) {
    if (signal === null) process.exit(status);
    if (["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"].indexOf(signal) === -1)
      process.exit(128 + os.constants.signals[signal]);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

var args = process.argv.slice(2);
var needsWallet = args[0] === "--wallet";
if (needsWallet) args.shift();
if (args.length === 0) {
  say("usage: node build/run.cjs [--wallet] SCRIPT [ARGUMENT…]");
  process.exit(64);
}
prepare();
var node = requireNode();
if (needsWallet) buildWallet(node);
run(node, [path.resolve(root, args[0])].concat(args.slice(1)));
