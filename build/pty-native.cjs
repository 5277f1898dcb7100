// Stands in for @lydell/node-pty's look-up of its platform package in the bundles: the binding lies beside them.
"use strict";

const path = require("node:path");

exports.requireBinary = function requireBinary() {
  const native = { exports: {} };
  process.dlopen(native, path.join(__dirname, "pty.node"));
  return native.exports;
};
