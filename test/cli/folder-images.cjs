// Preloaded into a program (node --require): after each call that changes the folder ECP_IMAGE_OF it copies that folder to the next
// number in ECP_IMAGES: what a process killed, or a power cut, at that instant leaves. A write is imaged half done as well.
"use strict";
const fs = require("node:fs");
const path = require("node:path");

const folder = process.env.ECP_IMAGE_OF;
const images = process.env.ECP_IMAGES;
const { writeSync, renameSync, rmSync, unlinkSync, openSync, ftruncateSync } = fs;
let next = 0;
let copying = false;

function image(what) {
  if (copying) return;
  copying = true;
  const to = path.join(images, String(next++).padStart(4, "0"));
  // Sockets are nothing that outlives their process.
  fs.cpSync(folder, to, { recursive: true, filter: (from) => !fs.lstatSync(from).isSocket() });
  fs.appendFileSync(path.join(images, "list"), `${path.basename(to)} ${what}\n`);
  copying = false;
}

fs.writeSync = (...args) => {
  const [descriptor, bytes, offset, length, position] = args;
  if (copying || descriptor <= 2) return writeSync.apply(fs, args);
  const target = fs.readlinkSync(`/proc/self/fd/${descriptor}`);
  if (!target.startsWith(`${folder}/`)) return writeSync.apply(fs, args);
  const name = path.relative(folder, target);
  // Of a block of the journal a part of its record, too.
  const half = Math.min(300, Math.floor((length === undefined ? bytes.length : length) / 2));
  if (half > 0) {
    if (typeof position === "number") {
      const before = Buffer.alloc(half);
      const got = fs.readSync(descriptor, before, 0, half, position);
      writeSync(descriptor, bytes, offset || 0, half, position);
      image(`half ${name}`);
      writeSync(descriptor, before, 0, got, position);
      if (got < half) ftruncateSync(descriptor, position + got);
    } else image(`none ${name}`);
  }
  const written = writeSync.apply(fs, args);
  image(`write ${name}`);
  return written;
};
const after =
  (name, own) =>
  (...args) => {
    const result = own.apply(fs, args);
    if (!copying && args.some((arg) => typeof arg === "string" && path.resolve(arg).startsWith(`${folder}/`)))
      image(
        `${name} ${args
          .filter((arg) => typeof arg === "string")
          .map((arg) => path.basename(arg))
          .join(" ")}`,
      );
    return result;
  };
fs.renameSync = after("rename", renameSync);
fs.rmSync = after("rm", rmSync);
fs.unlinkSync = after("unlink", unlinkSync);
fs.openSync = (file, flags, mode) => {
  const makes = !copying && typeof flags === "number" && (flags & fs.constants.O_CREAT) !== 0 && !fs.existsSync(file);
  const descriptor = openSync(file, flags, mode);
  if (makes && path.resolve(file).startsWith(`${folder}/`)) image(`create ${path.basename(file)}`);
  return descriptor;
};
image("begin");
