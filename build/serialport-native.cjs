// Stands in for node-gyp-build in the bundles: of all their packages only serialport's binding is loaded through it. The prebuilt
// binding lies beside the bundle, once for each C library; which one the system has shows when it is loaded.
"use strict";

const path = require("node:path");

module.exports = function load() {
  const reasons = [];
  for (const libc of ["glibc", "musl"]) {
    const file = path.join(__dirname, `serialport-${process.arch}-${libc}.node`);
    const native = { exports: {} };
    try {
      process.dlopen(native, file);
      return native.exports;
    } catch (error) {
      reasons.push(error.message);
    }
  }
  throw new Error(
    `the serial port's binding was not loaded: ${reasons.join("; ")}: copy the .node files beside ${__filename}`,
  );
};
