/** A real wallet process on a folder that is made here: for benchmarks, with a cheap passphrase, so that starts show the journal. */
import { createHash, createPrivateKey, sign } from "node:crypto";
import { chmodSync, globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { WalletClient } from "../agent/wallet-client.ts";
import { walletNodeFlags } from "../cli/ecp-wallet-run.ts";
import type { Row } from "../protocol/record.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import { programFile, type RunningProgram } from "../test/system/running-program-fixture.ts";
import type { Scene } from "../test/system/scene-fixture.ts";
import { WalletFixture } from "../test/wallet/wallet-fixture.ts";
import { timeMarkPaths } from "../wallet/clock-state.ts";
import { type DeviceKey, deviceKeyOf, lockSeed } from "../wallet/keystore.ts";
import { emptyPolicy, encodePolicy, type PolicyMeter } from "../wallet/policy.ts";
import { Missing } from "./campaign.ts";

const passphrase = "bench";
const cheap = { memoryKiB: 8, passes: 1, parallelism: 1 };
export const benchSeed: Uint8Array = new Uint8Array(createHash("sha256").update("wallet bench").digest());
const pkcs8Ed25519 = Buffer.from("302e020100300506032b657004220420", "hex"); // RFC 8410 §7

export const benchMeters: readonly PolicyMeter[] = Array.from({ length: 24 }, (_, index) => ({
  ...{ index, name: `meter ${index}`, profile: "bench", slotS: 1, powerMaxW: 0, rowsPerMinute: 6_000 },
  ...{ resolutionWh: 1_000, installation: 0, installationReason: "" },
}));

/** Makes a wallet's folder; with so many records in its journal already. */
export function makeWallet(folder: string, segments: number, records: number, sealEveryS = 0): void {
  mkdirSync(folder, { recursive: true });
  chmodSync(folder, 0o700);
  writeFileSync(path.join(folder, "passphrase"), `${passphrase}\n`, { mode: 0o600 });
  writeFileSync(path.join(folder, "device.key"), lockSeed(benchSeed, Buffer.from(passphrase), cheap), { mode: 0o600 });
  const policy = { ...emptyPolicy, meters: benchMeters, sealEveryS };
  writeFileSync(path.join(folder, "policy.cbor"), encodePolicy(policy), { mode: 0o600 });
  const endings: (() => unknown)[] = [];
  const context = { after: (ending: unknown) => endings.push(ending as () => unknown) };
  const wallet = new WalletFixture(context, { parent: folder, segments, segmentBlocks: 256, policy, key: quickKey() });
  wallet.clock.set(Math.floor(Date.now() / 1_000) - 3_000_000);
  let timeS = Math.floor(wallet.clock.wallMs() / 1_000);
  for (let i = 0; i < records; i++) wallet.seal([rowOf(++timeS)], { meter: i % benchMeters.length });
  for (const ending of endings.reverse()) ending();
}

/** The same signatures by node:crypto, 14 times faster: for what is made before the clock runs. */
export function quickKey(): DeviceKey {
  const key = createPrivateKey({ key: Buffer.concat([pkcs8Ed25519, benchSeed]), format: "der", type: "pkcs8" });
  return { ...deviceKeyOf(benchSeed), sign: (message) => new Uint8Array(sign(null, message, key)) };
}

/** A reading of two energies. */
export function rowOf(timeS: number): Row {
  return {
    timeS,
    status: 0,
    values: [41_000_000 + (timeS % 1_000_000), 18_000_000 + Math.floor((timeS % 1_000_000) / 2)],
  };
}

/** Debian's, under the machine's own triplet. */
function faketimeLibrary(): string {
  const [found] = globSync("/usr/lib/*/faketime/libfaketimeMT.so.1");
  if (found === undefined) throw new Missing("libfaketimeMT.so.1 is missing (Debian's libfaketime)");
  return found;
}

/**
 * The hardened process itself, with what `run` makes of its arguments: started directly, since `run` leaves no LD_PRELOAD to it.
 * The time marks lie in `marks`.
 */
export function hardenedArguments(folder: string, passphraseFile: string, marks: string): string[] {
  const program = programFile("ecp-wallet");
  const socket = path.join(folder, "wallet.sock");
  const readable = [passphraseFile, ...timeMarkPaths(marks)];
  return [
    ...walletNodeFlags({ program, data: folder, socket: [socket], readable }),
    ...[program, "serve", "--data", folder, "--socket", socket, "--passphrase-file", passphraseFile],
    ...["--time-marks", marks, "--boot-id", "00".repeat(16)],
  ];
}

/** The environment under which a process sees the time that `file` says (faketime(1)); its monotonic clock stays as it is. */
export function fakedTime(file: string): NodeJS.ProcessEnv {
  return {
    ...process.env,
    LD_PRELOAD: faketimeLibrary(),
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: "1",
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
    DONT_FAKE_MONOTONIC: "1",
  };
}

export class WalletPeer {
  readonly process: RunningProgram;
  readonly client: WalletClient;
  #timeS = Math.floor(Date.now() / 1_000) - 2_000_000;

  private constructor(process: RunningProgram, client: WalletClient) {
    this.process = process;
    this.client = client;
  }

  /** Starts it; resolves at the first answer. */
  static async start(scene: Scene, folder: string): Promise<WalletPeer> {
    const socket = path.join(folder, "wallet.sock");
    const args = ["run", "--data", folder, "--socket", socket, "--passphrase-file", path.join(folder, "passphrase")];
    const started = scene.startCommand(process.execPath, [programFile("ecp-wallet"), ...args, "--exit-with-parent"]);
    const client = new WalletClient(socket);
    await started.event(({ message }) => message === "ready");
    return new WalletPeer(started, client);
  }

  /** Seals so many rows of one meter after another, `rows` in each request. */
  async seal(requests: number, rows = 1): Promise<void> {
    for (let i = 0; i < requests; i++) {
      const from = this.#timeS + 1;
      this.#timeS += rows;
      await this.#sealed({
        ...{ meter: i % benchMeters.length, plan: 0, slotS: 1, codes: [2, 4] },
        rows: Array.from({ length: rows }, (_, k) => rowOf(from + k)),
      });
    }
  }

  /** Where the policy's rate is used up, it waits for it: what is counted then are bytes, not seconds. */
  async #sealed(request: Parameters<WalletClient["seal"]>[0]): Promise<void> {
    for (;;) {
      try {
        await this.client.seal(request);
        return;
      } catch (error) {
        if (!(error instanceof WalletRefusal) || error.reason !== "rate-exceeded") throw error;
        await pause(200);
      }
    }
  }

  /** Its anonymous memory in MiB (proc(5), RssAnon), and its proportional share of all (smaps_rollup, Pss). */
  memory(): { anonymousMiB: number; pssMiB: number } {
    const of = (file: string, field: string): number => {
      const [, kib] =
        new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(readFileSync(`/proc/${this.process.pid}/${file}`, "latin1")) ??
        [];
      return Math.round((Number(kib) / 1_024) * 10) / 10;
    };
    return { anonymousMiB: of("status", "RssAnon"), pssMiB: of("smaps_rollup", "Pss") };
  }

  async stop(): Promise<void> {
    const { client } = this;
    client.close();
    await this.process.stop();
  }
}
