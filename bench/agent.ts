/**
 * The hub's two processes, agent and wallet, started by their launchers as under systemd, with 12 values from 1 and from 10 meters (Modbus
 * TCP) at one reading a second each, every reading sealed by itself (`seal_every_s: 0`), through a real mosquitto to a real full node; beside
 * a plain script that neither signs nor stores. Memory is anonymous memory, PSS beside it. The time to publish is from the meter's last
 * answer to the broker's subscriber. The start is measured with everything there, at random times of the second.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { connectAsync } from "mqtt";
import { systemClock } from "../platform/clock.ts";
import { Community } from "../test/system/community-fixture.ts";
import { Mosquitto, mosquittoMissing } from "../test/system/mosquitto-fixture.ts";
import type { RunningProgram } from "../test/system/running-program-fixture.ts";
import { Scene } from "../test/system/scene-fixture.ts";
import { type Campaign, Missing, runCampaign } from "./campaign.ts";
import { cpuMsOf, memoryOf } from "./process-cost.ts";

/** Registers that `ecp plan --profile eastron-sdm630 --tcp` reads: the same for both. */
const blocks = [
  [0, 12],
  [52, 24],
] as const;
const root = path.resolve(import.meta.dirname, "..");
/** The start, and the check of the journal that follows it. */
const settleMs = 12_000;
const limits = { cpuMsAReading: 4, anonymousMiB: 60, publishMsP50: 5, firstSealedMs: 1_000 };

interface Cost {
  readonly cpuMsAReading: number;
  readonly anonymousMiB: number;
  readonly pssMiB: number;
  readonly publishMsP50: number;
}

/** Ends with the condition, so that nothing of one runs beside the next. */
async function inScene<T>(campaign: Campaign, body: (scene: Scene) => Promise<T>): Promise<T> {
  let ending: () => unknown = () => undefined;
  const scene = new Scene({
    after: (end) => {
      ending = end as () => unknown;
    },
  });
  const once = async (): Promise<void> => {
    const end = ending;
    ending = () => undefined;
    await end();
  };
  campaign.after(once);
  try {
    return await body(scene);
  } finally {
    await once();
  }
}

class Stage {
  readonly scene: Scene;
  readonly broker: Mosquitto;
  readonly meters: RunningProgram;
  readonly modbusPort: number;
  readonly password: string;

  private constructor(scene: Scene, broker: Mosquitto, meters: RunningProgram, modbusPort: number) {
    this.scene = scene;
    this.broker = broker;
    this.meters = meters;
    this.modbusPort = modbusPort;
    this.password = readFileSync(broker.passwordFile, "utf8").trim();
  }

  static async set(scene: Scene, meters: number): Promise<Stage> {
    const broker = await Mosquitto.prepare(scene);
    await broker.start();
    const file = path.join(import.meta.dirname, "agent-meters.ts");
    const started = scene.startCommand(process.execPath, [file, `${meters}`]);
    const { port } = await started.event<{ port: number }>((event) => "port" in event);
    return new Stage(scene, broker, started, port);
  }

  /** Watches processes for so long, and what they publish under a topic. */
  async watch(pids: readonly number[], filter: string, seconds: number): Promise<Cost> {
    const arrivedMs: number[] = [];
    const subscriber = await connectAsync({
      ...{ host: "127.0.0.1", port: this.broker.port, username: this.broker.username, password: this.password },
      reconnectPeriod: 0,
    });
    subscriber.on("message", () => arrivedMs.push(systemClock.monotonicMs()));
    await pause(settleMs);
    await subscriber.subscribeAsync(filter, { qos: 0 });
    await this.#answers();
    const cpu = (): number => pids.reduce((sum, pid) => sum + cpuMsOf(pid), 0);
    const before = cpu();
    arrivedMs.length = 0;
    await pause(seconds * 1_000);
    const cpuMs = cpu() - before;
    const readings = arrivedMs.length;
    const memories = pids.map(memoryOf);
    const answeredMs = await this.#answers();
    await subscriber.endAsync(true);
    const timesMs = arrivedMs
      .map((atMs) => atMs - Math.max(...answeredMs.filter((answered) => answered <= atMs)))
      .filter(Number.isFinite)
      .sort((a, b) => a - b);
    const sum = (field: "anonymousMiB" | "pssMiB"): number =>
      round(memories.reduce((total, memory) => total + memory[field], 0));
    return {
      cpuMsAReading: round(cpuMs / readings),
      anonymousMiB: sum("anonymousMiB"),
      pssMiB: sum("pssMiB"),
      publishMsP50: round(timesMs[timesMs.length >> 1] ?? Number.NaN),
    };
  }

  async #answers(): Promise<readonly number[]> {
    const { position } = this.meters;
    this.meters.write("\n");
    return (await this.meters.event<{ answeredMs: number[] }>((event) => "answeredMs" in event, position)).answeredMs;
  }
}

const round = (value: number): number => Math.round(value * 100) / 100;

function linesAndMeters(port: number, meters: number): string {
  const list = Array.from(
    { length: meters },
    (_, i) => `  - { name: m${i}, index: ${i}, line: main, unit: ${i + 1}, profile: eastron-sdm630, interval_s: 1 }\n`,
  );
  return `lines:\n  - { name: main, tcp: { host: 127.0.0.1, port: ${port} } }\nmeters:\n${list.join("")}`;
}

/** A hub of two processes, started by their launchers. */
class Hub {
  readonly #community: Community;

  constructor(community: Community) {
    this.#community = community;
  }

  /** @param report what a reading prints then is no part of its cost under systemd */
  start(report: readonly string[] = ["--json"]): { wallet: RunningProgram; agent: RunningProgram } {
    const { scene, config } = this.#community;
    const launcher = (name: string): string => path.join(root, "dist", name);
    const folder = scene.path("wallet");
    const socket = path.join(folder, "wallet.sock");
    const key = ["--passphrase-file", scene.path("passphrase")];
    const walletArgs = ["run", "--data", folder, "--socket", socket, ...key, "--exit-with-parent"];
    return {
      wallet: scene.startCommand(launcher("ecp-wallet"), walletArgs),
      agent: scene.startCommand(launcher("ecp"), ["agent", "--config", config, ...report, "--exit-with-parent"]),
    };
  }
}

async function ours(
  campaign: Campaign,
  meters: number,
  seconds: number,
  starts: number,
): Promise<Cost & { startsMs: number[] }> {
  return inScene(campaign, async (scene) => {
    const stage = await Stage.set(scene, meters);
    const { broker } = stage;
    const community = await Community.setUp(scene, {
      broker,
      linesAndMeters: linesAndMeters(stage.modbusPort, meters),
    });
    const credentials = ["--username", broker.username, "--password-file", broker.passwordFile];
    await community.startNode("--broker", `mqtt://127.0.0.1:${broker.port}`, ...credentials);
    const hub = new Hub(community);
    const startsMs: number[] = [];
    for (let i = 0; i < starts; i++) {
      await pause(campaign.random.integer(0, 1_000));
      const fromMs = performance.now();
      const { wallet, agent } = hub.start();
      await agent.event(({ event }) => event === "sealed");
      startsMs.push(Math.round(performance.now() - fromMs));
      await agent.stop();
      await wallet.stop();
    }
    const { wallet, agent } = hub.start([]);
    const cost = await stage.watch([wallet.pid, agent.pid], "ecp/1/+/record", seconds);
    const alone = memoryOf(agent.pid);
    campaign.say(
      `${meters} meters: ${JSON.stringify(cost)}, of it the agent ${JSON.stringify(alone)}; starts ${startsMs}`,
    );
    return { ...cost, startsMs };
  });
}

async function plain(campaign: Campaign, meters: number, seconds: number): Promise<Cost> {
  return inScene(campaign, async (scene) => {
    const stage = await Stage.set(scene, meters);
    const options = {
      ...{ modbusPort: stage.modbusPort, mqttPort: stage.broker.port, meters, blocks },
      ...{ username: stage.broker.username, password: stage.password },
    };
    const file = path.join(import.meta.dirname, "agent-plain.mjs");
    const script = scene.startCommand(process.execPath, [file, JSON.stringify(options)]);
    await script.event(({ ready }) => ready === true);
    const cost = await stage.watch([script.pid], "plain/+", seconds);
    campaign.say(`plain script, ${meters} meters: ${JSON.stringify(cost)}`);
    return cost;
  });
}

await runCampaign("agent", async (campaign) => {
  if (mosquittoMissing) throw new Missing(mosquittoMissing);
  for (const name of ["ecp", "ecp-wallet"])
    execFileSync(process.execPath, ["esbuild.config.mjs", "--only", name, "--quiet"], { cwd: root });
  const seconds = campaign.count(60, 8);
  const one = await ours(campaign, 1, seconds, campaign.count(11, 3));
  const ten = await ours(campaign, 10, seconds, 0);
  const plainOne = await plain(campaign, 1, seconds);
  const plainTen = await plain(campaign, 10, seconds);
  const sorted = one.startsMs.toSorted((a, b) => a - b);
  const named = (cost: Cost, name: string): Record<string, number> => ({
    [`${name} cpuMsAReading`]: cost.cpuMsAReading,
    [`${name} anonymousMiB`]: cost.anonymousMiB,
    [`${name} pssMiB`]: cost.pssMiB,
    [`${name} publishMsP50`]: cost.publishMsP50,
  });
  const firstSealedMs = sorted[sorted.length >> 1] ?? Number.NaN;
  const holds = [one, ten].every(
    ({ cpuMsAReading, anonymousMiB }) => cpuMsAReading <= limits.cpuMsAReading && anonymousMiB <= limits.anonymousMiB,
  );
  return {
    figures: {
      ...named(one, "1 meter"),
      ...named(ten, "10 meters"),
      firstSealedMs,
      firstSealedMsMin: sorted[0] ?? Number.NaN,
    },
    control: { ...named(plainOne, "plain 1 meter"), ...named(plainTen, "plain 10 meters") },
    holds: holds && one.publishMsP50 <= limits.publishMsP50 && firstSealedMs <= limits.firstSealedMs,
  };
});
