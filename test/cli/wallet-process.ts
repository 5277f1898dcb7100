/** The real wallet for tests: its bundle built into a folder of its own, started as its unit or `ecp run` would. */
import { type ChildProcess, type StdioOptions, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { WalletClient } from "../../agent/wallet-client.ts";
import { Journal } from "../../wallet/journal.ts";
import { deviceKeyOf, lockSeed } from "../../wallet/keystore.ts";
import { emptyPolicy, encodePolicy, type WalletPolicy } from "../../wallet/policy.ts";

const project = path.resolve(import.meta.dirname, "../..");
const startTimeoutMs = 20_000;
export const passphrase = "correct horse battery";

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class WalletProcess {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;

  constructor(child: ChildProcess) {
    this.child = child;
    let stdout = "";
    let stderr = "";
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    this.ended = new Promise((resolve) => {
      child.once("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
    });
  }

  get pid(): number {
    return this.child.pid as number;
  }

  async end(signal: NodeJS.Signals): Promise<Ended> {
    this.child.kill(signal);
    return this.ended;
  }
}

/** A folder with the bundle, a wallet's data made without the expensive passphrase cost, and its passphrase file. */
export class WalletFolder {
  readonly root = mkdtempSync(path.join(tmpdir(), "ecp-wallet-process-"));
  readonly program = path.join(this.root, "dist", "ecp-wallet");
  readonly data = path.join(this.root, "data");
  readonly passphraseFile = path.join(this.root, "passphrase");
  readonly socket = path.join(this.root, "wallet.sock");
  readonly #processes: WalletProcess[] = [];

  constructor() {
    const args = ["esbuild.config.mjs", "--only", "ecp-wallet", "--quiet", "--out", path.join(this.root, "dist")];
    const built = spawnSync(process.execPath, args, { cwd: project, encoding: "utf8" });
    if (built.status !== 0) throw new Error(built.stderr);
    writeFileSync(this.passphraseFile, `${passphrase}\n`, { mode: 0o600 });
  }

  /** Makes the wallet's files as init does, with a key that is quick to open. */
  make(policy: Partial<WalletPolicy> = {}, segments = 4): void {
    this.#endAll();
    rmSync(this.socket, { force: true });
    rmSync(this.data, { recursive: true, force: true });
    mkdirSync(this.data, { mode: 0o700 });
    Journal.create(path.join(this.data, "journal"), 0x1234_5678, segments);
    this.putPolicy(policy);
    const cost = { memoryKiB: 64, passes: 1, parallelism: 1 };
    writeFileSync(path.join(this.data, "device.key"), lockSeed(this.seed, Buffer.from(passphrase), cost), {
      mode: 0o600,
    });
  }

  get seed(): Uint8Array {
    return new Uint8Array(32).fill(7);
  }
  get key(): ReturnType<typeof deviceKeyOf> {
    return deviceKeyOf(this.seed);
  }

  putPolicy(policy: Partial<WalletPolicy>): void {
    writeFileSync(path.join(this.data, "policy.cbor"), encodePolicy({ ...emptyPolicy, ...policy }), { mode: 0o600 });
  }

  /** Runs a command to its end. */
  command(args: readonly string[], options: { input?: string; env?: NodeJS.ProcessEnv } = {}): Ended {
    const { input = "", env = process.env } = options;
    const result = spawnSync(this.program, args, { input, env, encoding: "utf8", timeout: startTimeoutMs });
    return { code: result.status, signal: result.signal, stdout: result.stdout, stderr: result.stderr };
  }

  run(args: readonly string[] = [], stdio: ("ignore" | "pipe")[] = ["ignore", "pipe", "pipe"]): WalletProcess {
    const all = [
      "run",
      "--data",
      this.data,
      "--socket",
      this.socket,
      "--passphrase-file",
      this.passphraseFile,
      ...args,
    ];
    return this.started(this.spawn(all, stdio));
  }

  spawn(args: readonly string[], stdio: StdioOptions = ["ignore", "pipe", "pipe"], env = process.env): ChildProcess {
    return spawn(this.program, args, { stdio, env });
  }

  /** A process that ends with the folder at the latest, so that a test that failed leaves none behind. */
  started(child: ChildProcess): WalletProcess {
    const wallet = new WalletProcess(child);
    this.#processes.push(wallet);
    return wallet;
  }

  /** A client of the running wallet, which answers; rejects with what the wallet said where it ended instead. */
  async client(wallet: WalletProcess): Promise<WalletClient> {
    const client = new WalletClient(this.socket);
    const gone = wallet.ended.then(({ code, stderr }) => {
      throw new Error(`the wallet ended with ${code}: ${stderr}`);
    });
    await Promise.race([client.connected(AbortSignal.timeout(startTimeoutMs)), gone]);
    gone.catch(() => undefined);
    return client;
  }

  /** Ends what a test that failed has left running. */
  #endAll(): void {
    for (const { child } of this.#processes.splice(0)) if (child.exitCode === null) child.kill("SIGKILL");
  }

  remove(): void {
    this.#endAll();
    rmSync(this.root, { recursive: true, force: true });
  }
}
