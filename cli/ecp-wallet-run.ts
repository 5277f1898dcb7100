/** ecp-wallet run: becomes the hardened process, the same program under Node's permission model and without a JIT. */
import { closeSync, openSync, realpathSync } from "node:fs";
import { join, resolve } from "node:path";
import { timesyncMark } from "../wallet/clock-state.ts";
import {
  CommandError,
  exitCodes,
  parseOptions,
  readNeeded,
  type WalletCommand,
  walletFiles,
} from "./ecp-wallet-command.ts";
import { descriptorOf, PassphraseError, passphraseOptions, readPassphrase } from "./ecp-wallet-passphrase.ts";
import { serve } from "./ecp-wallet-serve.ts";

const runOptions = {
  ...passphraseOptions,
  socket: { type: "string" },
  "socket-mode": { type: "string" },
  "exit-with-parent": { type: "boolean" },
} as const;

/**
 * Node's flags for the wallet: no file but its own, no child process, worker, addon or inspector, no JIT (so that the unit
 * can forbid writable executable memory), a small heap.
 */
export function walletNodeFlags(paths: {
  program: string;
  data: string;
  socket: string;
  readable: readonly string[];
}): string[] {
  const readable = [paths.program, paths.data, timesyncMark, paths.socket, ...paths.readable];
  return [
    "--permission",
    ...readable.map((path) => `--allow-fs-read=${path}`),
    `--allow-fs-write=${paths.data}`,
    `--allow-fs-write=${paths.socket}`,
    "--jitless",
    "--disable-sigusr1",
    "--frozen-intrinsics",
    "--no-experimental-sqlite",
    "--disable-warning=ExperimentalWarning",
    "--max-old-space-size=32",
    "--max-semi-space-size=1",
  ];
}

export const run: WalletCommand = async (args) => {
  const values = parseOptions("run", args, runOptions);
  const { data } = values;
  const program = realpathSync(process.argv[1] as string);
  if (program.endsWith(".ts"))
    throw new CommandError(
      exitCodes.usage,
      "the wallet runs from its bundle only: npm run build, then dist/ecp-wallet run …",
    );
  readNeeded(walletFiles(data).key);
  readNeeded(walletFiles(data).policy);
  socketModeOf(values["socket-mode"]);
  const socket = resolve(values.socket ?? join(data, "wallet.sock"));
  const readable = values["passphrase-file"] === undefined ? [] : [resolve(values["passphrase-file"])];
  const flags = walletNodeFlags({ program, data, socket, readable });
  const serveArguments = ["serve", "--data", data, "--socket", socket];
  const file = values["passphrase-file"];
  const descriptor = values["passphrase-fd"];
  const exitWithParent = values["exit-with-parent"] === true;
  if (file !== undefined) serveArguments.push("--passphrase-file", resolve(file));
  else if (descriptor !== undefined) serveArguments.push("--passphrase-fd", passOn(descriptor, exitWithParent));
  if (values["socket-mode"] !== undefined) serveArguments.push("--socket-mode", values["socket-mode"]);
  if (exitWithParent) serveArguments.push("--exit-with-parent");
  // Here, since under the permission model a folder is lost by a readable sibling whose name it begins (Node 24.21:
  // wallet/ beside wallet.passphrase); what lies inside it is not.
  process.chdir(data);
  process.execve?.(
    process.execPath,
    [process.execPath, ...flags, program, ...serveArguments],
    process.env as Record<string, string>,
  );
  throw new CommandError(exitCodes.unavailable, "this system cannot replace a process (execve); run under Linux");
};

/** Moves a descriptor to 0: Node closes all above 2 when it becomes another program. Gives its number from then on. */
function passOn(text: string, exitWithParent: boolean): string {
  const descriptor = descriptorOf(text);
  if (descriptor <= 2) return text;
  if (exitWithParent)
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

/** The second half of `run`, in the hardened process. */
export const serveHere: WalletCommand = async (args) => {
  const values = parseOptions("serve", args, runOptions);
  const { data } = values;
  const key = readNeeded(walletFiles(data).key);
  const source = { file: values["passphrase-file"], descriptor: values["passphrase-fd"] };
  const passphrase = await readPassphrase(source, "Passphrase of the device key: ");
  await serve({
    data,
    key,
    passphrase,
    socket: values.socket ?? join(data, "wallet.sock"),
    socketMode: socketModeOf(values["socket-mode"]),
    exitWithParent: values["exit-with-parent"] === true,
  });
};

function socketModeOf(text = "0600"): number {
  if (!/^0?[0-7]{3}$/.test(text))
    throw new CommandError(exitCodes.usage, `--socket-mode ${text}: an octal mode such as 0660 was expected`);
  return Number.parseInt(text, 8);
}
