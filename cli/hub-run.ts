/** ecp run: wallet and agent as siblings under one supervisor, for hubs without a service manager, and for a first try. */
import { existsSync } from "node:fs";
import { createLog } from "../platform/log.ts";
import { Part } from "../platform/supervisor.ts";
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { readHubFile } from "./hub-configuration.ts";
import { configOption } from "./hub-options.ts";
import { readPolicy } from "./hub-wallet.ts";
import { programCommand } from "./program-path.ts";

/** Ends of a part that no new start can mend: usage, bad data, missing files, permissions, configuration. */
const finalExitCodes = [exit.usage, exit.badData, exit.noInput, exit.notPermitted, exit.badConfiguration];

export const hubRun: Command = {
  summary: "run wallet and agent side by side, each started again when it dies",
  usage: `Usage: ecp run [--config hub.yaml] [--restart-after SECONDS]

Starts the wallet and the agent as processes of their own and keeps them running until SIGTERM or SIGINT, or until one says what no
new start can mend: a wrong configuration, or twice that another process has its socket or data. Both run as the
user who calls this, so they are not isolated from each other: the systemd units, with a user each, do that.`,

  async run(args) {
    const options = { ...configOption, "restart-after": { type: "string", default: "1" } } as const;
    const { values } = parseCommand("ecp run", args, options, []);
    const restartAfterMs = Number(values["restart-after"]) * 1_000;
    if (!(restartAfterMs >= 0 && restartAfterMs <= 3_600_000))
      throw usageError("ecp run", `--restart-after ${values["restart-after"]}: seconds from 0 to 3600 were expected`);
    const hub = readHubFile(values.config);
    const { walletFolder, walletSocket, passphraseFile } = hub.configuration;
    if (!passphraseFile || !existsSync(passphraseFile)) throw noPassphrase(values.config, passphraseFile);
    const log = createLog("run");
    if (readPolicy(hub).nodes.length === 0)
      log.warn("no full node is pinned: records are kept, and none is ever released; see 'ecp enrol' and 'ecp pin'");
    if (hub.policy.encryptTo !== "nobody" && readPolicy(hub).encryptTo === "nobody")
      log.warn("records travel readable: the wallet's policy is older than this configuration; run 'ecp config apply'");
    log.warn("wallet and agent run as one user: not isolated from each other; the systemd units isolate them");
    return await new Promise<number>((resolve, reject) => {
      const parts: Part[] = [];
      const end = (status: number): void => {
        stopInOrder(parts).then(() => resolve(status), reject);
      };
      const add = (name: string, command: { command: string; arguments: string[] }, more: string[]): void => {
        const final: number[] = [...finalExitCodes];
        // What is taken once may be held by a part that a crash left, and that is about to end; twice, another hub runs.
        let takenInARow = 0;
        const part = new Part(
          {
            name,
            command: command.command,
            arguments: () => [...command.arguments, ...more, "--exit-with-parent"],
            ownGroup: true,
            onStart: (pid) => log.info("started", { name, pid }),
            onExit: (code, signal) => {
              log.error("ended", { name, code: code ?? undefined, signal: signal ?? undefined });
              takenInARow = code === exit.unavailable ? takenInARow + 1 : 0;
              if (takenInARow === 2) final.push(exit.unavailable);
              if (code !== null && final.includes(code)) end(code);
            },
            finalExitCodes: final,
          },
          restartAfterMs,
        );
        parts.push(part);
        part.start();
      };
      add("wallet", programCommand("ecp-wallet"), [
        "run",
        ...["--data", walletFolder, "--socket", walletSocket, "--passphrase-file", passphraseFile],
      ]);
      const { command, arguments: file } = programCommand("ecp");
      // As small as the launcher made this process (esbuild.config.mjs).
      const small = process.execArgv.filter((flag) => /^--(max-semi-space-size=|single-threaded$)/.test(flag));
      add("agent", { command, arguments: [...small, ...file] }, ["agent", "--config", values.config]);
      process.once("SIGTERM", () => end(exit.ok));
      process.once("SIGINT", () => end(exit.ok));
    });
  },
};

/** The last started first: the agent seals what it has read before its wallet goes. */
async function stopInOrder(parts: readonly Part[]): Promise<void> {
  for (const part of [...parts].reverse()) await part.stop();
}

function noPassphrase(config: string, file: string | undefined): CommandError {
  return new CommandError(exit.noInput, {
    expected: "a passphrase file, to start the wallet with",
    got: file === undefined ? "'wallet: passphrase_file:' is not set" : "no such file",
    where: file ?? config,
    todo: "name the file that 'ecp init' made, or start ecp-wallet by hand and 'ecp agent' beside it",
  });
}
