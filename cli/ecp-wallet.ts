/** ecp-wallet: the process that alone holds the device key. Runs from its bundle, under flags that it puts on itself. */
import { randomInt } from "node:crypto";
import { chmodSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, realpathSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { writeFileDurably } from "../platform/durable-file.ts";
import { version } from "../platform/version.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { Journal } from "../wallet/journal.ts";
import { JournalError, JournalWriteError, segmentsDefault, segmentsMax, segmentsMin } from "../wallet/journal-ring.ts";
import { calibrateCost, deviceKeyOf, lockSeed, newSeed, publicKeyOfFile, WrongPassphrase } from "../wallet/keystore.ts";
import { emptyPolicy, encodePolicy } from "../wallet/policy.ts";
import { SocketError } from "../wallet/server.ts";
import { descriptorOf, PassphraseError, readPassphrase } from "./ecp-wallet-passphrase.ts";
import { DamagedFile, keyTodo, serve, understood, walletFiles, walletNodeFlags } from "./ecp-wallet-serve.ts";

const help = `ecp-wallet ${version}: holds the device key, seals readings, keeps them until a full node has signed for them

  ecp-wallet init  --data DIR [passphrase] [--segments N]   make key and journal (once)
  ecp-wallet run   --data DIR [passphrase] [--socket PATH] [--socket-mode 0600]
                                                            answer the agent at a Unix socket
  ecp-wallet show  --data DIR                               the device's name; needs no passphrase

  passphrase: --passphrase-file FILE (mode 0600), --passphrase-fd N, or typed at the terminal
  --segments N: the journal's size in MiB, ${segmentsMin} to ${segmentsMax}, default ${segmentsDefault}; fixed once made
  --socket PATH: default DIR/wallet.sock

exit codes: 0 done · 64 wrong usage · 65 damaged data · 66 file missing · 69 socket taken · 73 exists already
            74 write failed (start again: it recovers) · 77 wrong passphrase or no permission
`;

const exitCodes = { usage: 64, data: 65, missing: 66, unavailable: 69, exists: 73, io: 74, permission: 77 } as const;

/** An error that a person can mend: printed without a stack, with its exit code. */
class CommandError extends Error {
  readonly exitCode: number;
  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

const options = {
  data: { type: "string" },
  "passphrase-file": { type: "string" },
  "passphrase-fd": { type: "string" },
  segments: { type: "string" },
  socket: { type: "string" },
  "socket-mode": { type: "string" },
  "exit-with-parent": { type: "boolean" },
  help: { type: "boolean", short: "h" },
  version: { type: "boolean" },
} as const;

function parse(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options, allowPositionals: true, strict: true });
  } catch (error) {
    throw new CommandError(exitCodes.usage, `${(error as Error).message}\nSee: ecp-wallet --help`);
  }
}
type Values = ReturnType<typeof parse>["values"];

async function main(argv: readonly string[]): Promise<void> {
  const { values, positionals } = parse(argv);
  if (values.version) {
    process.stdout.write(`${version}\n`);
    return;
  }
  const [command, ...rest] = positionals;
  if (values.help || command === "help" || command === undefined) {
    process.stdout.write(help);
    if (command === undefined && !values.help) process.exitCode = exitCodes.usage;
    return;
  }
  if (rest.length > 0) throw new CommandError(exitCodes.usage, `'${rest[0]}' is one argument too many for ${command}`);
  const data = values.data;
  if (data === undefined)
    throw new CommandError(exitCodes.usage, `${command} needs --data DIR, the wallet's own folder`);
  switch (command) {
    case "init":
      return init(resolve(data), values);
    case "show":
      return show(resolve(data));
    case "run":
      return run(resolve(data), values);
    case "serve":
      return serveHere(resolve(data), values);
    default:
      throw new CommandError(exitCodes.usage, `there is no command '${command}'; see: ecp-wallet --help`);
  }
}

async function init(data: string, values: Values): Promise<void> {
  const files = walletFiles(data);
  const segments = Number(values.segments ?? segmentsDefault);
  if (!Number.isInteger(segments) || segments < segmentsMin || segments > segmentsMax)
    throw new CommandError(
      exitCodes.usage,
      `--segments ${values.segments}: an integer from ${segmentsMin} to ${segmentsMax} was expected`,
    );
  if (existsSync(files.key))
    throw new CommandError(exitCodes.exists, `${files.key} is there already; a device key is never overwritten`);
  mkdirSync(data, { recursive: true, mode: 0o700 });
  chmodSync(data, 0o700);
  const source = { file: values["passphrase-file"], descriptor: values["passphrase-fd"] };
  const passphrase = await readPassphrase(source, "New passphrase for the device key: ");
  if (source.file === undefined && source.descriptor === undefined) await confirm(passphrase);
  if (!existsSync(files.journal)) Journal.create(files.journal, randomInt(1, 0xffff_ffff), segments);
  const seed = newSeed();
  const locked = lockSeed(seed, passphrase, calibrateCost());
  passphrase.fill(0);
  const { publicKey } = deviceKeyOf(seed);
  if (!existsSync(files.policy)) writeFileDurably(files.policy, encodePolicy(emptyPolicy), 0o600);
  // The key comes last: while it is missing, init can be run again.
  writeFileDurably(files.key, locked, 0o600);
  seed.fill(0);
  process.stdout.write(`${didKeyOf(publicKey)}\n`);
}

async function confirm(passphrase: Buffer): Promise<void> {
  const again = await readPassphrase({}, "The same once more: ");
  const same = again.equals(passphrase);
  again.fill(0);
  if (!same) throw new CommandError(exitCodes.usage, "the two differ; nothing was made");
}

function show(data: string): void {
  const { key } = walletFiles(data);
  const bytes = readNeeded(key);
  process.stdout.write(`${didKeyOf(understood(key, keyTodo, () => publicKeyOfFile(bytes)))}\n`);
}

function readNeeded(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT")
      throw new CommandError(
        exitCodes.missing,
        `${path} is not there; 'ecp-wallet init --data ${dirname(path)}' makes a wallet`,
      );
    throw new CommandError(exitCodes.permission, `cannot read ${path}: ${message}`);
  }
}

/** Becomes the hardened process: the same program under Node's permission model, without a JIT (see SECURITY.md). */
function run(data: string, values: Values): void {
  const program = realpathSync(process.argv[1] as string);
  if (program.endsWith(".ts"))
    throw new CommandError(
      exitCodes.usage,
      "the wallet runs from its bundle only: npm run build, then dist/ecp-wallet run …",
    );
  readNeeded(walletFiles(data).key);
  readNeeded(walletFiles(data).policy);
  socketModeOf(values);
  const socket = resolve(values.socket ?? join(data, "wallet.sock"));
  const readable = values["passphrase-file"] === undefined ? [] : [resolve(values["passphrase-file"])];
  const flags = walletNodeFlags({ program, data, socket, readable });
  const serveArguments = ["serve", "--data", data, "--socket", socket];
  const file = values["passphrase-file"];
  const descriptor = values["passphrase-fd"];
  if (file !== undefined) serveArguments.push("--passphrase-file", resolve(file));
  else if (descriptor !== undefined) serveArguments.push("--passphrase-fd", passOn(descriptor, values));
  if (values["socket-mode"] !== undefined) serveArguments.push("--socket-mode", values["socket-mode"]);
  if (values["exit-with-parent"]) serveArguments.push("--exit-with-parent");
  // Here, since under the permission model a folder is lost by a readable sibling whose name it begins (Node 24.21:
  // wallet/ beside wallet.passphrase); what lies inside it is not.
  process.chdir(data);
  process.execve?.(
    process.execPath,
    [process.execPath, ...flags, program, ...serveArguments],
    process.env as Record<string, string>,
  );
  throw new CommandError(exitCodes.unavailable, "this system cannot replace a process (execve); run under Linux");
}

/** Moves a descriptor to 0: Node closes all above 2 when it becomes another program. Gives its number from then on. */
function passOn(text: string, values: Values): string {
  const descriptor = descriptorOf(text);
  if (descriptor <= 2) return text;
  if (values["exit-with-parent"])
    throw new CommandError(
      exitCodes.usage,
      "--exit-with-parent needs the standard input, to which --passphrase-fd would be moved; use --passphrase-file",
    );
  closeSync(0);
  try {
    return String(openSync(`/proc/self/fd/${descriptor}`, "r"));
  } catch (error) {
    throw new PassphraseError(
      `--passphrase-fd ${descriptor} cannot be passed on (${(error as Error).message}); give an open file or pipe`,
    );
  }
}

async function serveHere(data: string, values: Values): Promise<void> {
  const key = readNeeded(walletFiles(data).key);
  const source = { file: values["passphrase-file"], descriptor: values["passphrase-fd"] };
  const passphrase = await readPassphrase(source, "Passphrase of the device key: ");
  await serve({
    data,
    key,
    passphrase,
    socket: values.socket ?? join(data, "wallet.sock"),
    socketMode: socketModeOf(values),
    exitWithParent: values["exit-with-parent"] === true,
  });
}

function socketModeOf(values: Values): number {
  const text = values["socket-mode"] ?? "0600";
  if (!/^0?[0-7]{3}$/.test(text))
    throw new CommandError(exitCodes.usage, `--socket-mode ${text}: an octal mode such as 0660 was expected`);
  return Number.parseInt(text, 8);
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommandError) return error.exitCode;
  if (error instanceof PassphraseError || error instanceof WrongPassphrase) return exitCodes.permission;
  if (error instanceof SocketError) return exitCodes.unavailable;
  if (error instanceof JournalWriteError) return exitCodes.io;
  if (error instanceof JournalError || error instanceof DamagedFile) return exitCodes.data;
  const { code } = error as NodeJS.ErrnoException;
  if (code === "EACCES" || code === "EPERM" || code === "ERR_ACCESS_DENIED") return exitCodes.permission;
  return exitCodes.io;
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`ecp-wallet: ${(error as Error).message}\n`);
  process.exit(exitCodeOf(error));
});
