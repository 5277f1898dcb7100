/** ecp-wallet run: becomes the hardened process, the same program under Node's permission model and without a JIT. */
import { closeSync, openSync, readFileSync, realpathSync } from "node:fs";
import { join, resolve } from "node:path";
import { timeMarkPaths } from "../wallet/clock-state.ts";
import type { ListenAt } from "../wallet/server.ts";
import { prepareTries } from "./ecp-wallet-chain.ts";
import {
  CommandError,
  exitCodes,
  parseOptions,
  readNeeded,
  type WalletCommand,
  walletFiles,
} from "./ecp-wallet-command.ts";
import { consentOf, keyOptions } from "./ecp-wallet-key.ts";
import { descriptorOf, PassphraseError } from "./ecp-wallet-passphrase.ts";
import { serve } from "./ecp-wallet-serve.ts";
import { tpmOf, tpmOptions } from "./ecp-wallet-tpm.ts";

const bootIdPath = "/proc/sys/kernel/random/boot_id";

const runOptions = {
  ...keyOptions,
  ...tpmOptions,
  socket: { type: "string" },
  "socket-mode": { type: "string" },
  "socket-fd": { type: "string" },
  "exit-with-parent": { type: "boolean" },
  "accept-older-card": { type: "boolean" },
  "time-marks": { type: "string" },
  "boot-id": { type: "string" },
} as const;
type RunValues = ReturnType<typeof parseOptions<typeof runOptions>>;

/**
 * What the hardened process gets of the environment. Nothing that changes how Node or the loader works (NODE_OPTIONS,
 * LD_PRELOAD …), and no secret that somebody put there.
 */
const environmentNames = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "CREDENTIALS_DIRECTORY", "INVOCATION_ID"];

/**
 * glibc's (mallopt(3)). One arena, and what a burst of requests took is given back instead of lying about: so do the 64 KiB that Node
 * takes for each read of a socket, and thresholds that are set do not grow by themselves.
 */
const smallAllocations = {
  MALLOC_ARENA_MAX: "1",
  MALLOC_MMAP_THRESHOLD_: "65536",
  MALLOC_TRIM_THRESHOLD_: "131072",
};

/**
 * What lives is 7 to 13 MiB, the more with two segments' rows at hand; garbage may be as much as the limit leaves room for, and a full
 * collection takes some 10 ms.
 */
const smallHeapFlags = [
  "--max-old-space-size=20",
  "--max-semi-space-size=1",
  "--optimize-for-size",
  "--compact-on-every-full-gc",
];

/**
 * Node's flags for the wallet: no file but its own, no child process, worker, addon or inspector, no JIT (so that the unit
 * can forbid writable executable memory), a small heap. Throws {@link CommandError} where a path has a "*", which Node would
 * take for all paths that begin as it does.
 */
export function walletNodeFlags(paths: {
  program: string;
  data: string;
  /** Where it listens; none where the socket is handed over. */
  socket: readonly string[];
  /** The TPM, where it counts with one. */
  device?: string;
  readable: readonly string[];
}): string[] {
  const writable = [paths.data, ...paths.socket, ...(paths.device === undefined ? [] : [paths.device])];
  const readable = [paths.program, ...writable, ...paths.readable];
  const wild = readable.find((path) => path.includes("*"));
  if (wild !== undefined)
    throw new CommandError(
      exitCodes.usage,
      `${wild}: a path without * was expected, since Node's permissions would open whatever begins like it; choose another`,
    );
  return [
    "--permission",
    ...readable.map((path) => `--allow-fs-read=${path}`),
    ...writable.map((path) => `--allow-fs-write=${path}`),
    "--jitless",
    "--disable-sigusr1",
    "--frozen-intrinsics",
    "--no-experimental-sqlite",
    "--disable-warning=ExperimentalWarning",
    ...smallHeapFlags,
    "--v8-pool-size=0",
    "--single-threaded",
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
  const files = walletFiles(data);
  readNeeded(files.key);
  consentOf(values);
  readNeeded(files.policy);
  // Here, where fsync is allowed.
  prepareTries(files);
  const listenAt = listenAtOf(values);
  const socket = "path" in listenAt ? [listenAt.path] : [];
  const file = values["passphrase-file"] && resolve(values["passphrase-file"]);
  const marks = timeMarkPaths(values["time-marks"] && resolve(values["time-marks"]));
  const readable = file === undefined ? marks : [...marks, file];
  const device = tpmOf(values)?.path;
  const flags = walletNodeFlags({ program, data, socket, readable, ...(device !== undefined && { device }) });
  const serving = serveArguments(values, file);
  // Here, since under the permission model a folder is lost by a readable sibling whose name it begins (Node 24.21:
  // wallet/ beside wallet.passphrase); what lies inside it is not.
  process.chdir(data);
  process.execve?.(
    process.execPath,
    [process.execPath, ...flags, program, "serve", ...serving],
    minimalEnvironment(process.env),
  );
  throw new CommandError(exitCodes.unavailable, "this system cannot replace a process (execve); run under Linux");
};

function minimalEnvironment(environment: NodeJS.ProcessEnv): Record<string, string> {
  const kept = environmentNames.flatMap((name) => {
    const value = environment[name];
    return value === undefined ? [] : [[name, value] as const];
  });
  return { ...Object.fromEntries(kept), ...smallAllocations };
}

function serveArguments(values: RunValues, passphraseFile: string | undefined): string[] {
  const list = ["--data", values.data];
  if (values.socket !== undefined) list.push("--socket", resolve(values.socket));
  if (values["time-marks"] !== undefined) list.push("--time-marks", resolve(values["time-marks"]));
  // The hardened process may not read /proc.
  const bootId = bootIdOf(values["boot-id"] ?? readFileSync(bootIdPath, "utf8").trim());
  list.push("--boot-id", bootId.toString("hex"));
  for (const name of ["socket-mode", "socket-fd"] as const) {
    const value = values[name];
    if (value !== undefined) list.push(`--${name}`, value);
  }
  for (const name of ["exit-with-parent", "insecure", "accept-older-card"] as const)
    if (values[name]) list.push(`--${name}`);
  const tpm = tpmOf(values);
  if (tpm) list.push("--tpm", tpm.path, "--tpm-index", `${tpm.index}`);
  const descriptor = values["passphrase-fd"];
  if (passphraseFile !== undefined) list.push("--passphrase-file", passphraseFile);
  else if (descriptor !== undefined) list.push("--passphrase-fd", passOn(descriptor, values));
  return list;
}

/** Moves a descriptor to 0: Node closes all above 2 when it becomes another program. Gives its number from then on. */
function passOn(text: string, values: RunValues): string {
  const descriptor = descriptorOf(text);
  const user = values["exit-with-parent"] ? "--exit-with-parent" : values["socket-fd"] && "--socket-fd";
  if (user !== undefined && (descriptor > 2 || descriptor === 0))
    throw new CommandError(
      exitCodes.usage,
      `${user} needs the standard input, from which --passphrase-fd would be read; use --passphrase-file`,
    );
  if (descriptor <= 2) return text;
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
  await serve({
    data: values.data,
    consent: consentOf(values),
    listenAt: listenAtOf(values),
    exitWithParent: values["exit-with-parent"] === true,
    tpm: tpmOf(values),
    acceptOlderCard: values["accept-older-card"] === true,
    ...(values["boot-id"] !== undefined && { bootId: bootIdOf(values["boot-id"]) }),
    ...(values["time-marks"] !== undefined && { timeMarks: values["time-marks"] }),
  });
};

/** A boot's id as random(4) and systemd's %b write it: 32 hexadecimal digits, with or without hyphens. */
function bootIdOf(text: string): Buffer {
  const digits = text.replaceAll("-", "");
  if (!/^[0-9a-f]{32}$/i.test(digits))
    throw new CommandError(
      exitCodes.usage,
      `--boot-id ${text}: 32 hexadecimal digits were expected, as in ${bootIdPath}`,
    );
  return Buffer.from(digits, "hex");
}

function listenAtOf(values: RunValues): ListenAt {
  const { data, socket, "socket-mode": modeText = "0600", "socket-fd": descriptor } = values;
  if (!/^0?[0-7]{3}$/.test(modeText))
    throw new CommandError(exitCodes.usage, `--socket-mode ${modeText}: an octal mode such as 0660 was expected`);
  if (descriptor === undefined)
    return { path: resolve(socket ?? join(data, "wallet.sock")), mode: Number.parseInt(modeText, 8) };
  if (socket !== undefined || values["exit-with-parent"])
    throw new CommandError(
      exitCodes.usage,
      `--socket-fd with ${socket === undefined ? "--exit-with-parent" : "--socket"}: one of the two`,
    );
  if (descriptor !== "0")
    throw new CommandError(
      exitCodes.usage,
      `--socket-fd ${descriptor}: 0 was expected, the standard input (StandardInput=socket in the unit): Node closes all others when it becomes another program`,
    );
  return { descriptor: 0 };
}
