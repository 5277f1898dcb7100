/** A hub whose journal holds a backlog, made beforehand, with the programs that send it: wallet, agent, full node, as in real life. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { WalletClient } from "../agent/wallet-client.ts";
import { programFile, projectRoot, type RunningProgram } from "../test/system/running-program-fixture.ts";
import type { Scene } from "../test/system/scene-fixture.ts";
import { meterOf, WalletFixture } from "../test/wallet/wallet-fixture.ts";
import { plainSeed } from "../wallet/keystore.ts";
import { emptyPolicy, encodePolicy } from "../wallet/policy.ts";
import { benchSeed, quickKey, rowOf } from "./wallet-peer.ts";

const segmentBlocks = 256;
/** Each costs the wallet as much as some records. */
const helloEveryMs = 25;
const recordsOfASegment = 3_600;
const recordsOfASegmentOfBatches = 240;

export interface Backlog {
  readonly meters: number;
  readonly records: number;
  /** Rows of each record: one, or as many as there are seconds in a minute. */
  readonly rows: number;
}

export class BacklogHub {
  readonly folder: string;
  readonly #scene: Scene;
  #wallet: RunningProgram | undefined;
  #agent: RunningProgram | undefined;
  #client: WalletClient | undefined;

  constructor(scene: Scene, name: string) {
    this.#scene = scene;
    this.folder = scene.path(name);
  }

  get #walletFolder(): string {
    return path.join(this.folder, "wallet");
  }
  get #config(): string {
    return path.join(this.folder, "hub.yaml");
  }

  /** Seals the backlog with node:crypto, which takes the tenth of what the wallet would take. Gives records as they were sealed. */
  make({ meters, records, rows }: Backlog, brokerPort: number): { records: number; sample: Uint8Array[] } {
    mkdirSync(this.#walletFolder, { recursive: true, mode: 0o700 });
    writeFileSync(path.join(this.#walletFolder, "device.key"), plainSeed(benchSeed), { mode: 0o600 });
    // Of a minute's slot each row would be journaled by itself before its batch is sealed: that is another benchmark's matter.
    const slotS = rows === 1 ? 60 : 1;
    const policyMeters = Array.from({ length: meters }, (_, index) =>
      meterOf({ index, name: `meter-${index}`, profile: "eastron-sdm630", slotS }),
    );
    const policy = { ...emptyPolicy, meters: policyMeters, sealEveryS: rows === 1 ? 0 : rows };
    writeFileSync(path.join(this.#walletFolder, "policy.cbor"), encodePolicy(policy), { mode: 0o600 });
    writeFileSync(this.#config, hubText(policyMeters.length, brokerPort));
    const endings: (() => unknown)[] = [];
    const context = { after: (ending: unknown) => endings.push(ending as () => unknown) };
    const segments = 4 + Math.ceil(records / (rows === 1 ? recordsOfASegment : recordsOfASegmentOfBatches));
    const wallet = new WalletFixture(context, {
      ...{ parent: this.#walletFolder, segments, segmentBlocks, key: quickKey() },
      policy: { ...policy, nodes: [] },
    });
    wallet.secondsPerSeal = 0;
    const perRequest = rows === 1 ? 15 : rows;
    const startS = Math.floor(Date.now() / 1_000 / (rows * slotS)) * rows * slotS - 3_600_000;
    const readings = (records / meters) * rows;
    wallet.clock.set(startS + readings * slotS + 60);
    for (let done = 0; done < readings; done += perRequest)
      for (let meter = 0; meter < meters; meter++) {
        const count = Math.min(perRequest, readings - done);
        const times = Array.from({ length: count }, (_, i) => startS + (done + i + 1) * slotS);
        wallet.clock.pass(60); // within the meter's rate
        wallet.seal(times.map(rowOf), { meter });
      }
    wallet.wallet.tick();
    const last = wallet.journal.nextSequence - 1;
    const sample = wallet.journal.records(Math.max(1, last - 400), last, 1_000_000).map(([, bytes]) => bytes);
    for (const ending of endings.reverse()) ending();
    return { records: last, sample };
  }

  /** Enrols it at a node and pins that; starts the wallet. Gives how many records wait. */
  async startWallet(nodeFolder: string, encrypted: boolean): Promise<number> {
    const config = ["--config", this.#config];
    if (!encrypted)
      writeFileSync(
        this.#config,
        readFileSync(this.#config, "utf8").replace("uplink:\n", "uplink:\n  encrypt: false\n"),
      );
    const request = path.join(this.folder, "request.cose");
    await this.#scene.succeed("ecp-wallet", "show", "--data", this.#walletFolder);
    const socket = path.join(this.folder, "w.sock");
    const start = async (): Promise<RunningProgram> => {
      const args = ["run", "--data", this.#walletFolder, "--socket", socket, "--insecure", "--exit-with-parent"];
      const started = this.#scene.startCommand(process.execPath, [programFile("ecp-wallet"), ...args]);
      await started.event(({ message }) => message === "ready");
      return started;
    };
    const first = await start();
    const client = new WalletClient(socket);
    writeFileSync(request, await client.enrol());
    client.close();
    await first.stop();
    await this.#scene.succeed("ecp-node", "enrol", request, "--data", nodeFolder);
    await this.#scene.succeed("ecp", "config", "apply", ...config);
    await this.#scene.succeed("ecp", "pin", `${request}.answer`, ...config, "--yes");
    this.#wallet = await start();
    this.#client = new WalletClient(socket);
    const { nextSequence } = await this.#client.hello();
    return nextSequence - 1;
  }

  /** Starts the agent, which reads no meter; resolves when all that waits is released, with how long that took. */
  async drain(last: number, timeoutMs: number): Promise<{ drainMs: number; agentUs: number }> {
    const args = ["agent", "--config", this.#config, "--no-polling", "--exit-with-parent"];
    const agent = this.#scene.startCommand(path.join(projectRoot, "dist/ecp"), args);
    this.#agent = agent;
    const deadline = AbortSignal.timeout(timeoutMs);
    await agent.event(({ message }) => message === "uplink connected");
    const fromMs = performance.now();
    const fromUs = processorUs(agent.pid);
    for (;;) {
      const { through } = await (this.#client as WalletClient).hello();
      if (through >= last) break;
      deadline.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, helloEveryMs));
    }
    return { drainMs: performance.now() - fromMs, agentUs: processorUs(agent.pid) - fromUs };
  }

  get agentPid(): number | undefined {
    return this.#agent?.pid;
  }
  get walletPid(): number | undefined {
    return this.#wallet?.pid;
  }

  async stop(): Promise<void> {
    this.#client?.close();
    await this.#agent?.stop();
    await this.#wallet?.stop();
  }
}

function hubText(meters: number, brokerPort: number): string {
  const list = Array.from(
    { length: meters },
    (_, index) =>
      `  - { name: meter-${index}, index: ${index}, line: main, unit: ${index + 1}, profile: eastron-sdm630 }\n`,
  );
  return `wallet:
  folder: wallet
  socket: w.sock
agent: { socket: a.sock }
lines:
  - { name: main, serial: { path: /dev/null, baud: 9600 } }
meters:
${list.join("")}uplink:
  mqtt: { url: "mqtt://127.0.0.1:${brokerPort}" }
`;
}

/** Processor time that a process has taken, in microseconds (proc(5): utime and stime in hundredths of a second). */
export function processorUs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1")
    .replace(/^.*\) /, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}

/** Anonymous memory of a process, in MiB (proc(5)). */
export function anonymousMiB(pid: number): number {
  const [, kib] = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "latin1")) ?? [];
  return Number(kib ?? 0) / 1_024;
}
