/**
 * How near the wire's limit a line is polled, and at what cost: ours beside other masters on paced lines (simulator/paced-line.ts), which
 * measure every silence. Shares are of what the wire allows: request characters + t3.5 + turnaround + answer characters + t3.5; who
 * has more than 1 of it breaks silences. Other load on the machine shows as `stalledPercent`; figures of a busy machine say little.
 */
import { getPriority, loadavg } from "node:os";
import { Scene } from "../test/system/scene-fixture.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { type Condition, type Master, type Round, Track } from "./modbus-track.ts";

/** As the issue of this benchmark states them. */
const limits = { blockFactors: { 9600: 2.9, 115200: 4.7 } as Readonly<Record<number, number>> };

interface Speed extends Condition {
  readonly name: string;
  readonly shareMin: number;
  /** Polls in a round of the long form and of the short one. */
  readonly polls: readonly [number, number];
}

const speeds: readonly Speed[] = [
  { name: "At9600", baud: 9600, parity: "none", shareMin: 0.98, polls: [10, 2] },
  { name: "At19200", baud: 19_200, parity: "even", shareMin: 0.975, polls: [16, 3] },
  { name: "At115200", baud: 115_200, parity: "none", shareMin: 0.95, polls: [50, 8] },
];

const peers = ["modbus-serial", "jsmodbus", "libmodbus", "pymodbus"] as const;
/** Characters of a piece, where answers do not come whole. */
const pieceCharacters = 8;

type Figures = Record<string, number | string | boolean>;

await runCampaign("modbus", async (campaign) => {
  const scene = new Scene({ after: (ending) => campaign.after(ending as () => unknown) });
  const loadBefore = loadavg()[0] ?? 0;
  const figures: Figures = {};
  const control: Figures = {};
  const failures: string[] = [];
  const stalled: number[] = [];
  /** What holds in the long form only: a few polls on a machine that tests at the same time say nothing about a percent. */
  const demand = (what: string, holds: boolean, inShortToo = false): void => {
    if (!holds && (inShortToo || !campaign.short)) failures.push(what);
  };
  for (const speed of campaign.short ? speeds.filter(({ baud }) => baud !== 19_200) : speeds) {
    for (const pieces of [false, true]) {
      const masters = pieces ? ["ours", "modbus-serial"] : ["ours", ...peers];
      const rounds = await sideBySide(campaign, scene, { ...speed, ...(pieces && { pieceCharacters }) }, masters);
      const suffix = `${speed.name}${pieces ? "InPieces" : ""}`;
      for (const kind of masters) {
        const of = rounds.get(kind);
        if (of === undefined) {
          control[`${camel(kind)}${suffix}`] = "did not start: is it installed?";
          continue;
        }
        const to = kind === "ours" ? figures : control;
        const prefix = `${camel(kind)}${suffix}`;
        to[`${prefix}Share`] = rounded(median(of.map(({ share }) => share)), 4);
        to[`${prefix}Violations`] = sum(of, "violations");
        to[`${prefix}Silences`] = sum(of, "silences");
        to[`${prefix}CpuMsPerPoll`] = rounded(median(of.map(({ cpuMsPerPoll }) => cpuMsPerPoll)));
        to[`${prefix}Failed`] = sum(of, "failed");
        to[`${prefix}Wrong`] = sum(of, "wrong");
        stalled.push(...of.map(({ stalledPercent }) => stalledPercent));
      }
      const [own, theirs] = [rounds.get("ours") ?? [], rounds.get("modbus-serial") ?? []];
      demand(`${suffix}: a share of ${speed.shareMin}`, (figures[`ours${suffix}Share`] as number) >= speed.shareMin);
      demand(`${suffix}: no silence broken`, sum(own, "violations") === 0, true);
      demand(`${suffix}: no wrong value`, sum(own, "wrong") === 0, true);
      demand(`${suffix}: no read failed`, sum(own, "failed") === 0);
      demand(`${suffix}: the control breaks silences`, sum(theirs, "violations") > 0, true);
      const cpu = (of: readonly Round[]): number => median(of.map(({ cpuMsPerPoll }) => cpuMsPerPoll));
      demand(`${suffix}: no more CPU than modbus-serial's own port`, cpu(own) <= cpu(theirs));
    }
  }
  for (const speed of speeds) {
    const factorMin = limits.blockFactors[speed.baud];
    if (factorMin === undefined) continue;
    const factor = await blockFactor(campaign, scene, speed);
    figures[`blocks${speed.name}Factor`] = rounded(factor);
    demand(`${speed.name}: blocks ${factorMin} times as quick as single values`, factor >= factorMin);
  }
  Object.assign(figures, await growth(campaign, scene));
  figures.stalledPercentMedian = rounded(median(stalled));
  figures.stalledPercentMax = rounded(Math.max(...stalled));
  figures.loadBefore = rounded(loadBefore);
  figures.loadAfter = rounded(loadavg()[0] ?? 0);
  figures.niceness = getPriority();
  for (const failure of failures) campaign.say(`not met: ${failure}`);
  return { figures, control, holds: failures.length === 0 };
});

/** The masters take turns, round by round, so that what else the machine does falls on all of them. */
async function sideBySide(
  campaign: Campaign,
  scene: Scene,
  speed: Speed,
  kinds: readonly string[],
): Promise<Map<string, Round[]>> {
  const track = await Track.open(scene, speed, kinds.length);
  const masters = new Map<string, Master>();
  for (const kind of kinds) {
    const master = await track.start(kind);
    if (master !== undefined) masters.set(kind, master);
  }
  const polls = campaign.count(...speed.polls);
  const rounds = new Map<string, Round[]>([...masters.keys()].map((kind) => [kind, []]));
  for (const master of masters.values()) await master.round(campaign.count(2, 1) * polls); // compiled by then
  const count = campaign.count(7, 2);
  for (let i = 0; i < count; i++) {
    for (const [kind, master] of masters) rounds.get(kind)?.push(await master.round(polls));
    campaign.progress(i + 1, count, `rounds ${speed.name}`);
  }
  for (const [kind, of] of rounds) {
    const share = rounded(median(of.map((round) => round.share)), 4);
    const cpuMs = rounded(median(of.map(({ cpuMsPerPoll }) => cpuMsPerPoll)));
    const where = `${speed.name}${speed.pieceCharacters ? `, pieces of ${speed.pieceCharacters}` : ""}`;
    campaign.say(
      `${where}, ${kind}: share ${share}, ${sum(of, "violations")} of ${sum(of, "silences")} silences broken, ${cpuMs} ms of CPU a poll, ` +
        `stalled ${rounded(median(of.map(({ stalledPercent }) => stalledPercent)))} %`,
    );
  }
  await stopAll(masters.values(), track);
  return rounds;
}

/** How many times longer the same 32 values take when each is asked for by itself. */
async function blockFactor(campaign: Campaign, scene: Scene, speed: Speed): Promise<number> {
  const track = await Track.open(scene, speed, 1);
  const master = await mustStart(track, 1);
  const polls = campaign.count(speed.polls[0], speed.polls[1]);
  await master.round(polls, { set: "singles" });
  const factors: number[] = [];
  for (let i = 0; i < campaign.count(3, 1); i++) {
    const [blocks, singles] = [await master.round(polls), await master.round(polls, { set: "singles" })];
    factors.push(singles.elapsedMs / blocks.elapsedMs);
  }
  await stopAll([master], track);
  return median(factors);
}

/** From 1 to 32 meters on a line, and from 1 to 4 lines polled by one process. */
async function growth(campaign: Campaign, scene: Scene): Promise<Figures> {
  const figures: Figures = {};
  const speed = speeds[campaign.short ? 2 : 1] as Speed;
  for (const meters of [1, 8, 32]) {
    const track = await Track.open(scene, speed, 1);
    const master = await mustStart(track, 1);
    const units = Array.from({ length: meters }, (_, index) => index + 1);
    const round = await master.round(campaign.count(64, 8), { units });
    figures[`meters${meters}Share`] = rounded(round.share, 4);
    figures[`meters${meters}CpuMsPerPoll`] = rounded(round.cpuMsPerPoll);
    figures[`meters${meters}Violations`] = round.violations;
    await stopAll([master], track);
  }
  for (const lines of [1, 2, 4]) {
    const track = await Track.open(scene, speed, lines);
    const master = await mustStart(track, lines);
    const round = await master.round(campaign.count(32, 8));
    figures[`lines${lines}Share`] = rounded(round.share, 4);
    figures[`lines${lines}CpuMsPerPoll`] = rounded(round.cpuMsPerPoll / lines);
    figures[`lines${lines}Violations`] = round.violations;
    await stopAll([master], track);
  }
  figures.growthBaud = speed.baud;
  return figures;
}

async function mustStart(track: Track, lines: number): Promise<Master> {
  const master = await track.start("ours", lines);
  if (master === undefined) throw new Error("our own master did not start");
  return master;
}

async function stopAll(masters: Iterable<Master>, track: Track): Promise<void> {
  for (const master of masters) await master.stop();
  await track.close();
}

function sum(rounds: readonly Round[], key: "violations" | "silences" | "failed" | "wrong"): number {
  return rounds.reduce((total, round) => total + round[key], 0);
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function rounded(value: number, digits = 3): number {
  return Number(value.toPrecision(digits));
}

/** `modbus-serial` as `modbusSerial`. */
function camel(kind: string): string {
  return kind.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
}
