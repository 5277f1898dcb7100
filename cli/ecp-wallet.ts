/** ecp-wallet: the process that alone holds the device key. Runs from its bundle, under flags that it puts on itself. */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { version } from "../platform/version.ts";
import { segmentsDefault, segmentsMax, segmentsMin } from "../wallet/journal-ring.ts";
import { backup, restore } from "./ecp-wallet-backup.ts";
import { CommandError, exitCodeOf, exitCodes, type WalletCommand } from "./ecp-wallet-command.ts";
import { init } from "./ecp-wallet-init.ts";
import { journal } from "./ecp-wallet-journal.ts";
import { retire } from "./ecp-wallet-retire.ts";
import { rotate } from "./ecp-wallet-rotate.ts";
import { run, serveHere } from "./ecp-wallet-run.ts";
import { show } from "./ecp-wallet-show.ts";

const help = `ecp-wallet ${version}: holds the device key, seals readings, keeps them until a full node has signed for them

  ecp-wallet init    --data DIR KEY [--segments N]    make key and journal (once)
  ecp-wallet run     --data DIR KEY [--socket PATH] [--socket-mode 0600] [--socket-fd 0] [--exit-with-parent]
                     [--time-marks FOLDER] [--boot-id ID]     answer the agent at a Unix socket
  ecp-wallet show    --data DIR [--verbose|--json]    the device's name; its key, epoch, last record; needs no passphrase
  ecp-wallet rotate  --data DIR KEY [--new-passphrase[-file FILE|-fd N]]
                                                      a new key under the same name; the wallet must not run
  ecp-wallet backup  --data DIR KEY --output FILE [BACKUP]   key and history under a passphrase of the backup's own
  ecp-wallet restore --from FILE --data DIR KEY [BACKUP] [--segments N]
                                                      a new wallet of a backup, in a new folder and a new epoch
  ecp-wallet retire  --data DIR KEY [--yes]           seal the key's last record and destroy the seed; the wallet must not run
  ecp-wallet journal check  --data DIR                whether all of it is whole: blocks, chain, signatures
  ecp-wallet journal list   --data DIR [--epoch N] [--from SEQUENCE] [--to SEQUENCE] [--json]
  ecp-wallet journal stats  --data DIR [--json]       fill, records that wait, days that it holds
  ecp-wallet journal export --data DIR --output FILE [--waiting | --all]
                                                      a hand-over file of what waits for a receipt, or of everything

  KEY: --passphrase-file FILE (mode 0600), --passphrase-fd N, or typed at the terminal; or --insecure for a key without passphrase.
       After a wrong one the next try waits: 1 s, 2 s, 4 s … 60 s, until one is right.
  BACKUP: --backup-passphrase-file FILE, --backup-passphrase-fd N, or typed at the terminal
  TPM 2.0 counter (init, restore, run, rotate, retire): --tpm /dev/tpmrm0 [--tpm-index 0x01800ec0]; a card older than the TPM has
       seen is refused; run --accept-older-card goes on in a new epoch, which full nodes hold until their operator agrees
  --segments N: the journal's size in MiB, ${segmentsMin} to ${segmentsMax}, default ${segmentsDefault}; fixed once made
  --socket PATH: default DIR/wallet.sock; --socket-fd 0: the standard input is the listening socket (StandardInput=socket)
  --exit-with-parent: end when the standard input ends

exit codes: 0 done · 64 wrong usage · 65 damaged data · 66 file missing · 69 socket or folder taken · 73 there already,
            or cannot be made · 74 write failed (start again: it recovers) · 77 wrong passphrase or no permission
`;

/** `serve` is what `run` becomes; nobody calls it by hand. */
const commands: Readonly<Record<string, WalletCommand>> = {
  init,
  journal,
  run,
  serve: serveHere,
  show,
  rotate,
  backup,
  restore,
  retire,
};

/**
 * No core file of this process and of what it becomes (core(5)): a unit's LimitCORE=0 and a launcher's ulimit are not everywhere. Node
 * cannot set its limits, so prlimit(1) does it; and should there be one all the same, none of the memory may be in it.
 */
function preventCoreFiles(): void {
  if (process.permission !== undefined) return; // inherited from the process that became this one
  const isAllowed = !/^Max core file size +0 +0 /m.test(readFileSync("/proc/self/limits", "latin1"));
  if (isAllowed) spawnSync("prlimit", ["--pid", `${process.pid}`, "--core=0:0"], { stdio: "ignore" });
  try {
    writeFileSync("/proc/self/coredump_filter", "0");
  } catch (error) {
    process.stderr.write(`ecp-wallet: a core file could hold the key: ${(error as Error).message}\n`);
  }
}

async function main(args: readonly string[]): Promise<void> {
  const [name, ...rest] = args;
  if (name === "--version") {
    process.stdout.write(`${version}\n`);
    return;
  }
  if (name === undefined || name === "help" || rest.concat(name).some((word) => word === "--help" || word === "-h")) {
    process.stdout.write(help);
    if (name === undefined) process.exitCode = exitCodes.usage;
    return;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined)
    throw new CommandError(exitCodes.usage, `there is no command '${name}'; see: ecp-wallet --help`);
  preventCoreFiles();
  process.umask(0o077); // whatever is made here is the wallet's own; the socket gets its mode behind this
  await command(rest);
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`ecp-wallet: ${(error as Error).message}\n`);
  process.exit(exitCodeOf(error));
});
