/**
 * How often in a row a passphrase was wrong. The count is on disk before each try, so that neither kill -9, nor a power cut,
 * nor a clock set back gains a try; a success resets it. The wait before a try grows with it, and is waited in the process.
 */
import { closeSync, constants, existsSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { crc32 } from "node:zlib";
import { writeFileDurably } from "../platform/durable-file.ts";
import { readSmallFromDevice } from "./device-read.ts";
import { readKeyFile, unlockSeed } from "./keystore.ts";

const magic = "ECPT";
const version = 1;
const fileBytes = 16;
const waitSecondsMax = 60;
const countMax = 1_000_000;

/** What stands in the file where it is damaged: nobody is let in faster for having damaged it. */
const damaged = countMax;

/** Seconds to wait before the next try: none after a success, then 1, 2, 4 … 60. */
export function waitBeforeTryS(wrongTries: number): number {
  return wrongTries === 0 ? 0 : Math.min(waitSecondsMax, 2 ** (wrongTries - 1));
}

function encodeCount(count: number): Buffer {
  const bytes = Buffer.alloc(fileBytes);
  bytes.write(magic, "latin1");
  bytes.writeUInt16BE(version, 4);
  bytes.writeUInt32BE(count, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 12)), 12);
  return bytes;
}

function decodeCount(bytes: Buffer): number {
  const isWhole = bytes.length === fileBytes && bytes.readUInt32BE(12) === crc32(bytes.subarray(0, 12));
  if (!isWhole || bytes.toString("latin1", 0, 4) !== magic || bytes.readUInt16BE(4) !== version) return damaged;
  return Math.min(countMax, bytes.readUInt32BE(8));
}

/** The file with the count. */
export class PassphraseTries {
  readonly #path: string;

  /** Makes the file where it is missing, durably: one that {@link set} makes may be gone after a power cut. */
  static prepare(path: string): void {
    if (!existsSync(path)) writeFileDurably(path, encodeCount(0), 0o600);
  }

  constructor(path: string) {
    this.#path = path;
  }

  /**
   * Wrong tries since the last success; one that was cut short counts as wrong. As the device has it: one whose count could not be
   * written was not made.
   */
  get count(): number {
    return existsSync(this.#path) ? decodeCount(readSmallFromDevice(this.#path)) : 0;
  }

  /** Puts the count on the disk: when this returns, the device has it. */
  set(count: number): void {
    const descriptor = openSync(this.#path, constants.O_RDWR | constants.O_CREAT | constants.O_DSYNC, 0o600);
    try {
      writeSync(descriptor, encodeCount(Math.min(count, countMax)), 0, fileBytes, 0);
      ftruncateSync(descriptor, fileBytes); // what a damage made longer
    } finally {
      closeSync(descriptor);
    }
  }
}

/** Waits these seconds, by a clock that nobody can set; `why` is for people. */
export type Pause = (seconds: number, why: string) => Promise<void>;

function whyWait(count: number): string {
  if (count === damaged) return "the count of wrong passphrases is damaged";
  return count === 1 ? "the passphrase was wrong the last time" : `the passphrase was wrong ${count} times in a row`;
}

/**
 * Opens a key file as {@link unlockSeed} does, after the wait that wrong tries before it have earned. Two processes that try
 * at once wait for each other: what the other one failed meanwhile is waited for too.
 */
export async function unlockWithDelay(
  bytes: Uint8Array,
  passphrase: Uint8Array | undefined,
  path: string,
  tries: Pick<PassphraseTries, "count" | "set">,
  pause: Pause,
): Promise<Buffer> {
  // What is damaged, or open to everybody, is no try.
  if (readKeyFile(bytes).protection !== "passphrase") return unlockSeed(bytes, passphrase, path);
  let count = tries.count;
  for (let waitedFor = 0; waitedFor < count; count = tries.count) {
    await pause(waitBeforeTryS(count), whyWait(count));
    waitedFor = count;
  }
  tries.set(count + 1);
  const seed = unlockSeed(bytes, passphrase, path);
  tries.set(0);
  return seed;
}
