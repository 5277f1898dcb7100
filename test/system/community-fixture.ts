/** A hub and a full node as their operators set them up, with the programs' own commands; each knows the other's key. */
import { readFileSync, writeFileSync } from "node:fs";
import { eventually, type RunningProgram } from "./running-program-fixture.ts";
import { freePort, type Scene } from "./scene-fixture.ts";

export interface CommunityOptions {
  /** What stands below `lines:` and `meters:`; else one line, the simulator's link or `line`, and one meter. */
  readonly linesAndMeters?: string;
  /** Below the line's name. */
  readonly line?: string;
  readonly broker?: { readonly port: number; readonly username?: string; readonly passwordFile?: string };
  readonly intervalS?: number;
  /** Where the full node's data lies. */
  readonly nodeFolder?: string;
  /** Where the hub's wallet lies. */
  readonly walletFolder?: string;
}

export interface HubStatus {
  readonly wallet: { readonly nextSequence: number; readonly through: number; readonly device: string } | null;
  readonly agent: {
    readonly waiting: number;
    readonly uplink?: { readonly connected: boolean; readonly detail: string };
    readonly meters: readonly {
      readonly name: string;
      readonly lastStatus: string;
      readonly unsealedRows: number;
      readonly missedSlots: number;
      readonly lateReadings: number;
      readonly longestOffsetMs: number;
    }[];
  } | null;
}

export class Community {
  readonly scene: Scene;
  readonly config: string;
  readonly nodeFolder: string;
  readonly brokerPort: number;
  readonly meterLink: string;
  /** The device's did:key. */
  readonly device: string;

  private constructor(
    scene: Scene,
    paths: { config: string; nodeFolder: string; brokerPort: number; meterLink: string; device: string },
  ) {
    this.scene = scene;
    this.config = paths.config;
    this.nodeFolder = paths.nodeFolder;
    this.brokerPort = paths.brokerPort;
    this.meterLink = paths.meterLink;
    this.device = paths.device;
  }

  static async setUp(scene: Scene, options: CommunityOptions = {}): Promise<Community> {
    const config = scene.path("hub.yaml");
    const wallet = options.walletFolder ?? scene.path("wallet");
    const passphrase = scene.path("passphrase");
    writeFileSync(passphrase, "a passphrase for a test\n", { mode: 0o600 });
    const brokerPort = options.broker?.port ?? (await freePort());
    const meterLink = scene.path("meter.tty");
    const nodeFolder = options.nodeFolder ?? scene.path("node");
    writeFileSync(config, hubText({ ...options, wallet, brokerPort, meterLink }));
    const made = ["init", "--data", wallet, "--passphrase-file", passphrase, "--segments", "4"];
    const [device] = await Promise.all([
      scene.succeed("ecp-wallet", ...made),
      scene.succeed("ecp-node", "init", "--data", nodeFolder, "--name", "test"),
    ]);
    await scene.succeed("ecp", "config", "apply", "--config", config);
    const request = scene.path("request.cose");
    await scene.succeed("ecp", "enrol", "--config", config, "--out", request);
    await scene.succeed("ecp-node", "enrol", request, "--data", nodeFolder);
    await scene.succeed("ecp", "pin", `${request}.answer`, "--config", config, "--yes");
    return new Community(scene, { config, nodeFolder, brokerPort, meterLink, device: device.trim() });
  }

  /** The full node with a broker of its own; resolves when it listens. */
  async startNode(...more: string[]): Promise<RunningProgram> {
    const broker = more.includes("--broker") ? [] : ["--listen", `127.0.0.1:${this.brokerPort}`];
    const args = ["run", "--data", this.nodeFolder, "--json", "--exit-with-parent", ...broker, ...more];
    const node = this.scene.start("ecp-node", ...args);
    await node.event(({ event }) => event === "started");
    return node;
  }

  /** `ecp run`; resolves when both of its parts were started. */
  async startHub(): Promise<RunningProgram> {
    const hub = this.scene.start("ecp", "run", "--config", this.config, "--restart-after", "1");
    await hub.event(({ message, part, name }) => part === "run" && message === "started" && name === "agent");
    return hub;
  }

  /** A simulated meter at the hub's line, or at another link; resolves when it can be read. */
  async startMeter(options: { link?: string; fault?: string } = {}): Promise<RunningProgram> {
    const { link = this.meterLink, fault } = options;
    return startSimulator(this.scene, "--link", link, ...(fault === undefined ? [] : ["--fault", fault]));
  }

  /** Resolves when the full node has acknowledged everything that is sealed in the running epoch. */
  async allAcknowledged(timeoutMs: number): Promise<void> {
    const isSo = async (): Promise<boolean> => {
      const { wallet } = await this.status();
      return wallet !== null && wallet.nextSequence - 1 === wallet.through;
    };
    await eventually("everything sealed is acknowledged by the full node", isSo, timeoutMs);
  }

  async status(): Promise<HubStatus> {
    const { stdout } = await this.scene.run("ecp", "status", "--config", this.config, "--json");
    return JSON.parse(stdout) as HubStatus;
  }
}

export async function startSimulator(scene: Scene, ...args: string[]): Promise<RunningProgram> {
  const meter = scene.start("ecp-demo", "simulate", "--json", "--exit-with-parent", "--baud", "38400", ...args);
  await meter.event(({ event }) => event === "started");
  return meter;
}

function hubText(
  options: CommunityOptions & { readonly wallet: string; readonly brokerPort: number; readonly meterLink: string },
): string {
  const { wallet, brokerPort, meterLink, line, intervalS = 1, broker } = options;
  const linesAndMeters =
    options.linesAndMeters ??
    `lines:
  - name: main
    ${line ?? `serial: { path: ${meterLink}, baud: 9600 }`}
meters:
  - { name: house, index: 0, line: main, unit: 1, profile: eastron-sdm630, interval_s: ${intervalS} }
`;
  return `wallet:
  folder: ${wallet}
  passphrase_file: passphrase
  seal_every_s: 0
${linesAndMeters}uplink:
  mqtt:
    url: mqtt://127.0.0.1:${brokerPort}
${broker?.username === undefined ? "" : `    username: ${broker.username}\n`}${
  broker?.passwordFile === undefined ? "" : `    password_file: ${broker.passwordFile}\n`
}`;
}

/** The text of a file with one part of it exchanged; throws where that part is not in it. */
export function exchanged(file: string, part: string, by: string): string {
  const text = readFileSync(file, "utf8");
  if (!text.includes(part)) throw new Error(`${file} does not hold ${part}`);
  return text.replace(part, by);
}
