/** The operator's dealings with the wallet: its folder, its policy, and a wallet that is started for one request. */
import { spawn, spawnSync } from "node:child_process";
import { chownSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WalletClient, WalletUnavailable } from "../agent/wallet-client.ts";
import { writeFileDurably } from "../platform/durable-file.ts";
import { publicKeyOfDid } from "../protocol/public-key.ts";
import { decodePolicy, emptyPolicy, encodePolicy, type WalletPolicy } from "../wallet/policy.ts";
import { CommandError, exit } from "./command.ts";
import type { Hub } from "./hub-configuration.ts";
import { programCommand } from "./program-path.ts";

/** Longer than the longest wait after wrong passphrases. */
const startTimeoutMs = 120_000;

/** Runs `ecp-wallet` to its end with the terminal; its stdout comes back. Throws {@link CommandError} with its status. */
export function runWalletCommand(args: readonly string[]): string {
  const { command, arguments: first } = programCommand("ecp-wallet");
  const result = spawnSync(command, [...first, ...args], { stdio: ["inherit", "pipe", "pipe"], encoding: "utf8" });
  if (result.status === 0) return result.stdout.trim();
  throw new CommandError(result.status ?? (result.signal === "SIGINT" ? exit.interrupted : exit.failed), {
    expected: `ecp-wallet ${args[0]} to succeed`,
    got: (result.stderr ?? "").trim() || (result.error?.message ?? `it ended by ${result.signal}`),
    where: first[0] ?? "ecp-wallet",
    todo: "mend what it says; ecp-wallet --help",
  });
}

/** The device's public key, from the wallet's folder. */
export function devicePublicKey(walletFolder: string): Uint8Array {
  return publicKeyOfDid(runWalletCommand(["show", "--data", walletFolder]));
}

/** What only the wallet's folder tells: its journal's epochs, oldest first, and the records that lead from its name to its key. */
export interface WalletHistory {
  readonly epochs: readonly { readonly epoch: number; readonly first: number; readonly last: number }[];
  readonly rotationRecords: readonly string[];
}

/** Undefined where the folder is another user's. */
export function walletHistory(walletFolder: string): WalletHistory | undefined {
  try {
    return JSON.parse(runWalletCommand(["show", "--data", walletFolder, "--json"])) as WalletHistory;
  } catch (error) {
    if (error instanceof CommandError) return undefined;
    throw error;
  }
}

export function policyPath(hub: Hub): string {
  return join(hub.configuration.walletFolder, "policy.cbor");
}

export function readPolicy(hub: Hub): WalletPolicy {
  const path = policyPath(hub);
  if (existsSync(hub.configuration.walletFolder))
    return existsSync(path) ? decodePolicy(readFileSync(path)) : emptyPolicy;
  throw new CommandError(exit.noInput, {
    expected: "the wallet's folder",
    got: "no such folder",
    where: hub.configuration.walletFolder,
    todo: "'ecp init' makes a wallet; 'wallet: folder:' in hub.yaml says where it is",
  });
}

/** Writes the wallet's policy; it stays its owner's. The wallet obeys it from its next start on. */
export function writePolicy(hub: Hub, policy: WalletPolicy): void {
  const path = policyPath(hub);
  writeFileDurably(path, encodePolicy(policy), 0o600);
  const { uid, gid } = statSync(hub.configuration.walletFolder);
  if (process.getuid?.() === 0 && uid !== 0) chownSync(path, uid, gid);
}

/** Calls `use` with the running wallet, or with one that is started for it and ended afterwards. */
export async function withWallet<T>(hub: Hub, use: (wallet: WalletClient) => Promise<T>): Promise<T> {
  const running = new WalletClient(hub.configuration.walletSocket);
  try {
    await running.hello();
    return await use(running);
  } catch (error) {
    if (!(error instanceof WalletUnavailable)) throw error;
  } finally {
    running.close();
  }
  return startedWallet(hub, use);
}

async function startedWallet<T>(hub: Hub, use: (wallet: WalletClient) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "ecp-"));
  const socket = join(folder, "wallet.sock");
  const { command, arguments: first } = programCommand("ecp-wallet");
  const passphrase = hub.configuration.passphraseFile;
  const args = [...first, "run", "--data", hub.configuration.walletFolder, "--socket", socket];
  // With us it ends, however we end: a wallet left behind would lock out the next. Where the passphrase is typed, it needs
  // the terminal instead, whose Ctrl-C reaches it.
  if (passphrase) args.push("--passphrase-file", passphrase, "--exit-with-parent");
  const child = spawn(command, args, { stdio: [passphrase ? "pipe" : "inherit", "inherit", "pipe"] });
  child.stdin?.on("error", () => undefined); // it went first: its exit says all there is to say
  let said = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(-4_096);
  });
  const gone = new AbortController();
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  child.once("close", () => gone.abort());
  const wallet = new WalletClient(socket);
  try {
    await wallet.connected(AbortSignal.any([gone.signal, AbortSignal.timeout(startTimeoutMs)]));
    return await use(wallet);
  } catch (error) {
    if ((error as Error).name !== "AbortError" && (error as Error).name !== "TimeoutError") throw error;
    throw new CommandError(child.exitCode ?? exit.unavailable, {
      expected: "a wallet that answers",
      got: said.trim().split("\n").at(-1) || `none after ${startTimeoutMs / 1_000} s`,
      where: hub.configuration.walletFolder,
      todo: "mend what it says, then try again",
    });
  } finally {
    wallet.close();
    child.kill("SIGTERM");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  }
}
