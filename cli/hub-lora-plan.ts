/** ecp lora plan: what a configuration costs on the air at each data rate. Asks neither meter nor modem. */
import type { LoraConfiguration } from "../agent/configuration.ts";
import { automaticLengthS } from "../agent/lora-batch.ts";
import { loraCodes } from "../agent/lora-codes.ts";
import { frameBytes, packetAirtimeMs, typicalPacketBytes } from "../agent/lora-load.ts";
import { type DataRate, dataRates, payloadBytesMax, subBands } from "../drivers/lora/region.ts";
import { packetBytesMax } from "../protocol/lorawan.ts";
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { type Hub, readHubFile } from "./hub-configuration.ts";
import { configOption, jsonOption } from "./hub-options.ts";
import { durationText, formatTable, terminalColumns } from "./table.ts";

const dayS = 86_400;
/** What one sub-band of 1 % allows in an hour. The modem does not tell its channel, so all frames count against one. */
const lawfulHourMs = 36_000;

interface PlannedRate extends DataRate {
  /** Largest payload of a frame. */
  readonly frameBytesMax: number;
  readonly batchS: number;
  /** Of all meters, one record each. */
  readonly packets: readonly number[];
  readonly frames: number;
  readonly airtimeMs: number;
  readonly airtimeDayMs: number;
}

export const hubLoraPlan: Command = {
  summary: "show frames, airtime and share of the budgets at each data rate",
  usage: `Usage: ecp lora plan [--config hub.yaml] [--batch SECONDS] [--json]

Computes from 'uplink: lora:' of the configuration; asks neither meter nor modem. A batch is built as the wallet would sign it,
with values as a house has them, and cut as the uplink cuts it. Without loss: what is lost is sent again, and joins and the
wallet's own events come on top. --batch shows another length than the configuration's.`,

  async run(args) {
    const options = { ...configOption, ...jsonOption, batch: { type: "string" } } as const;
    const { values } = parseCommand("ecp lora plan", args, options, []);
    const hub = readHubFile(values.config);
    const { lora } = hub.configuration;
    if (!lora)
      throw new CommandError(exit.badConfiguration, {
        expected: "the block 'uplink: lora:' in hub.yaml",
        got: "none",
        where: values.config,
        todo: "add it; docs/lorawan.md shows how",
      });
    const batchS = values.batch === undefined ? lora.batchS : batchOf(values.batch, lora.slotS);
    const plans = dataRates(lora.region).flatMap((rate) => planOf(hub, { ...lora, batchS }, rate) ?? []);
    process.stdout.write(values.json ? jsonText(lora, plans) : tableText(hub, lora, plans));
    return exit.ok;
  },
};

function batchOf(text: string, slotS: number): number {
  const batchS = Number(text);
  if (/^\d{1,5}$/.test(text) && batchS > 0 && batchS % slotS === 0 && dayS % batchS === 0) return batchS;
  throw usageError("ecp lora plan", `--batch ${text}: a multiple of slot_s (${slotS}) that divides a day was expected`);
}

/** Undefined where the region lets nothing of use through at that data rate. */
function planOf({ configuration, profileOf }: Hub, lora: LoraConfiguration, rate: DataRate): PlannedRate | undefined {
  const { region, slotS, fairUseSPerDay } = lora;
  const meters = configuration.meters.map(({ codes, profile }) =>
    loraCodes(codes ?? profileOf(profile).defaultCodes, lora.codes),
  );
  const { dataRate } = rate;
  const batchS =
    lora.batchS === "auto" ? automaticLengthS({ region, dataRate, fairUseSPerDay, slotS, meters }) : lora.batchS;
  const packets = meters.map((codes) => typicalPacketBytes({ codes, rows: batchS / slotS, slotS }));
  const airtimes = packets.map((bytes) => packetAirtimeMs(region, dataRate, bytes));
  const frameBytesMax = payloadBytesMax(region, dataRate);
  if (frameBytesMax === undefined || airtimes.includes(undefined)) return undefined;
  const airtimeMs = airtimes.reduce<number>((sum, ms) => sum + (ms ?? 0), 0);
  return {
    ...{ ...rate, frameBytesMax, batchS, packets, airtimeMs },
    frames: packets.reduce((sum, bytes) => sum + frameBytes(bytes, frameBytesMax).length, 0),
    airtimeDayMs: (airtimeMs * dayS) / batchS,
  };
}

/** Share of what the law, and where set the network, allow a day; 1 is all of it. */
function shares({ region, fairUseSPerDay }: LoraConfiguration, { airtimeDayMs }: PlannedRate) {
  return {
    dutyCycle: subBands(region).length === 0 ? undefined : airtimeDayMs / (24 * lawfulHourMs),
    fairUse: fairUseSPerDay === undefined ? undefined : airtimeDayMs / (fairUseSPerDay * 1_000),
  };
}

function jsonText(lora: LoraConfiguration, plans: readonly PlannedRate[]): string {
  const rounded = (value: number) => Math.round(value * 10) / 10;
  const rates = plans.map((plan) => ({
    ...plan,
    airtimeMs: rounded(plan.airtimeMs),
    airtimeDayMs: rounded(plan.airtimeDayMs),
    ...shares(lora, plan),
  }));
  return `${JSON.stringify({ region: lora.region, slotS: lora.slotS, rates })}\n`;
}

function tableText(hub: Hub, lora: LoraConfiguration, plans: readonly PlannedRate[]): string {
  const percent = (share: number | undefined): string => (share === undefined ? "–" : `${(share * 100).toFixed(1)} %`);
  const seconds = (ms: number): string => `${(ms / 1_000).toFixed(2)} s`;
  const rows = plans.map((plan) => {
    const { dutyCycle, fairUse } = shares(lora, plan);
    return [
      ...[`${plan.dataRate}`, `SF${plan.spreadingFactor}/${plan.bandwidthKhz}`, `${plan.frameBytesMax}`],
      ...[durationText(plan.batchS), plan.packets.join("+"), `${plan.frames}`, seconds(plan.airtimeMs)],
      ...[seconds(plan.airtimeDayMs), percent(dutyCycle), percent(fairUse)],
    ];
  });
  const right = { align: "right" } as const;
  const columns = [
    ...[{ title: "DR", ...right }, { title: "radio" }, { title: "frame B", ...right }, { title: "batch", ...right }],
    ...[
      { title: "packets B", ...right },
      { title: "frames", ...right },
      { title: "airtime", ...right },
    ],
    ...[
      { title: "a day", ...right },
      { title: "of the law's", ...right },
      { title: "of fair use", ...right },
    ],
  ];
  const { meters } = hub.configuration;
  const head = `${lora.region}: rows of ${meters.length} meter${meters.length === 1 ? "" : "s"} every ${durationText(lora.slotS)}\n`;
  return head + formatTable(columns, rows, terminalColumns()) + warnings(lora, plans);
}

/** What cannot work, in words. */
function warnings(lora: LoraConfiguration, plans: readonly PlannedRate[]): string {
  const list = (found: readonly PlannedRate[]) => found.map(({ dataRate }) => dataRate).join(", ");
  const over = plans.filter((plan) => {
    const { dutyCycle = 0, fairUse = 0 } = shares(lora, plan);
    return Math.max(dutyCycle, fairUse) > 1;
  });
  const large = plans.filter(({ packets }) => packets.some((bytes) => bytes > packetBytesMax));
  return [
    ...(over.length > 0
      ? [`More than is allowed at data rate ${list(over)}: records would wait there, and more each day.`]
      : []),
    ...(large.length > 0
      ? [
          `At data rate ${list(large)} a batch is more than a packet holds (${packetBytesMax} bytes): it is closed early.`,
        ]
      : []),
  ]
    .map((text) => `${text}\n`)
    .join("");
}
