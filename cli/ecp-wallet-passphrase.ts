/** Where a passphrase comes from: a file of mode 0600, a descriptor, or the terminal. Never the environment or an argument. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { resolve, sep } from "node:path";
import { passphraseBytesMax } from "../wallet/keystore.ts";

/** The passphrase cannot be had; the message says what to do. */
export class PassphraseError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "PassphraseError";
  }
}

/** What was typed twice is not the same. */
export class PassphrasesDiffer extends Error {
  constructor() {
    super("the two differ; nothing was made");
    this.name = "PassphrasesDiffer";
  }
}

export interface PassphraseSource {
  readonly file?: string | undefined;
  readonly descriptor?: string | undefined;
}

/** Where it comes from by these options; the file's path is absolute, since commands change into the wallet's folder. */
export function sourceOf(file: string | undefined, descriptor: string | undefined): PassphraseSource {
  return { file: file && resolve(file), descriptor };
}

/** The options that every command with a passphrase takes. */
export const passphraseOptions = {
  "passphrase-file": { type: "string" },
  "passphrase-fd": { type: "string" },
} as const;

/** A passphrase that is to be set: typed at the terminal it is asked for twice. */
export async function readNewPassphrase(source: PassphraseSource, prompt: string): Promise<Buffer> {
  const passphrase = await readPassphrase(source, prompt);
  if (source.file !== undefined || source.descriptor !== undefined) return passphrase;
  const again = await readPassphrase({}, "The same once more: ");
  const same = again.equals(passphrase);
  again.fill(0);
  if (!same) throw new PassphrasesDiffer();
  return passphrase;
}

/** The passphrase's bytes without the line's end; the caller wipes them. */
export async function readPassphrase(source: PassphraseSource, prompt: string): Promise<Buffer> {
  const bytes = await bytesOf(source, prompt);
  const end = bytes.indexOf(0x0a);
  const passphrase = Buffer.from(end < 0 ? bytes : bytes.subarray(0, end));
  bytes.fill(0);
  if (passphrase.length === 0) throw new PassphraseError("the passphrase is empty");
  return passphrase;
}

async function bytesOf(source: PassphraseSource, prompt: string): Promise<Buffer> {
  if (source.file !== undefined) return readPassphraseFile(source.file);
  if (source.descriptor !== undefined) {
    const descriptor = descriptorOf(source.descriptor);
    return readWhole(descriptor, `descriptor ${descriptor}`);
  }
  if (!process.stdin.isTTY)
    throw new PassphraseError(
      "no passphrase: give --passphrase-file FILE or --passphrase-fd N, or run this in a terminal",
    );
  return askTerminal(prompt);
}

/** The number in `--passphrase-fd`. Throws {@link PassphraseError} where it is none. */
export function descriptorOf(text: string): number {
  if (!/^\d{1,6}$/.test(text))
    throw new PassphraseError(`--passphrase-fd ${text} is not the number of an open descriptor`);
  return Number(text);
}

function readPassphraseFile(path: string): Buffer {
  let descriptor: number;
  try {
    descriptor = openSync(path, "r");
  } catch (error) {
    throw new PassphraseError(`cannot read the passphrase file ${path}: ${(error as Error).message}`);
  }
  try {
    const stats = fstatSync(descriptor);
    if (stats.isDirectory()) throw new PassphraseError(`${path} is a folder, where a passphrase file was expected`);
    const { mode } = stats;
    if ((mode & 0o077) !== 0 && !isCredential(path))
      throw new PassphraseError(
        `${path} has mode ${(mode & 0o777).toString(8).padStart(4, "0")}, so others can read it; do: chmod 600 ${path}`,
      );
    return readWhole(descriptor, path);
  } finally {
    closeSync(descriptor);
  }
}

/** systemd gives a service its credentials in a folder that only it can enter, and may do so by an ACL, seen as 0440. */
function isCredential(path: string): boolean {
  const folder = process.env.CREDENTIALS_DIRECTORY;
  return folder?.startsWith(sep) === true && resolve(path).startsWith(resolve(folder) + sep);
}

function readWhole(descriptor: number, name: string): Buffer {
  const bytes = Buffer.alloc(passphraseBytesMax + 1);
  let length = 0;
  for (;;) {
    const count = readSome(descriptor, bytes.subarray(length), name);
    length += count;
    if (count === 0) return bytes.subarray(0, length);
    if (length > passphraseBytesMax) throw new PassphraseError(`${name} holds more than ${passphraseBytesMax} bytes`);
  }
}

function readSome(descriptor: number, bytes: Buffer, name: string): number {
  try {
    return readSync(descriptor, bytes, 0, bytes.length, null);
  } catch (error) {
    throw new PassphraseError(`cannot read the passphrase from ${name}: ${(error as Error).message}`);
  }
}

/** Length of a text of UTF-8 without its last character. */
function withoutLast(bytes: Buffer, length: number): number {
  let end = Math.max(0, length - 1);
  while (end > 0 && ((bytes[end] as number) & 0xc0) === 0x80) end--;
  return end;
}

/** Reads a line without echo. */
function askTerminal(prompt: string): Promise<Buffer> {
  process.stderr.write(prompt);
  const { stdin } = process;
  stdin.setRawMode(true);
  stdin.resume();
  const typed = Buffer.alloc(passphraseBytesMax);
  let length = 0;
  return new Promise((resolve, reject) => {
    const done = (error?: Error): void => {
      stdin.off("data", onData);
      stdin.setRawMode(false);
      stdin.pause();
      process.stderr.write("\n");
      if (error) reject(error);
      else resolve(Buffer.from(typed.subarray(0, length)));
      typed.fill(0);
    };
    const onData = (bytes: Buffer): void => {
      for (const byte of bytes) {
        if (byte === 0x0d || byte === 0x0a || byte === 0x03 || byte === 0x04) {
          done(byte < 0x0a ? new PassphraseError("interrupted") : undefined);
          return;
        }
        if (byte === 0x7f) length = withoutLast(typed, length);
        else if (length < typed.length) typed[length++] = byte;
      }
    };
    stdin.on("data", onData);
  });
}
