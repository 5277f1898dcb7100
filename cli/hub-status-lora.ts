/** The LoRaWAN part of `ecp status`. */
import type { LoraCarrierStatus } from "../agent/lora-carrier.ts";
import type { LoraAllowance, LoraCondition, LoraStatus } from "../agent/lora-status.ts";
import { durationText } from "./table.ts";

const conditionWords: Record<LoraCondition, string> = {
  stopped: "stopped",
  "modem-away": "THE MODEM DOES NOT ANSWER",
  joining: "joins the network",
  "not-joined": "NOT JOINED",
  sending: "a frame is on its way",
  idle: "nothing is to be sent now",
  "duty-cycle": "waits: the airtime that the law allows an hour is used up",
  "fair-use": "waits: the airtime that the network allows a day is used up",
  "modem-refuses": "waits: the modem refuses for now",
  "no-room": "waits: frames are too short now for what is to be sent",
  "state-unwritable": "STOPPED: its state cannot be written, and airtime might be forgotten",
  "no-records": "waits for the wallet",
};

/** Lines below the heading `Agent`. */
export function loraText(lora: LoraCarrierStatus): string {
  const lines = [
    ["lora", `${lora.modem}, ${lora.region}: ${stateText(lora)}`],
    ["", `${lora.isJoined ? "joined" : "not joined"}${rateText(lora)}; ${downlinkText(lora)}`],
    [
      "",
      `${plural(lora.framesSent, "frame")} up, ${plural(lora.downlinks, "downlink")} since the start; airtime ${airtimeText(lora)}`,
    ],
    ["", `rows every ${durationText(lora.slotS)}, batches of ${durationText(lora.batchS)}; ${waysText(lora)}`],
    ["", "the network server can read what goes this way"],
  ];
  return lines.map(([name = "", text = ""]) => `  ${name.padEnd(11)}${text}\n`).join("");
}

function stateText({ condition, detail, resumesInMs }: LoraStatus): string {
  const resumes = resumesInMs === undefined ? "" : `, goes on in ${durationText(Math.ceil(resumesInMs / 1_000))}`;
  return `${conditionWords[condition]}${detail ? ` (${detail})` : ""}${resumes}`;
}

function rateText({ dataRate, bytesMax }: LoraStatus): string {
  if (dataRate === undefined) return "";
  return `, data rate ${dataRate}${bytesMax === undefined ? "" : `, frames of up to ${bytesMax} bytes`}`;
}

/** A downlink can only follow an uplink: who does not know takes that for loss. */
function downlinkText({ sinceDownlinkMs }: LoraStatus): string {
  if (sinceDownlinkMs === undefined) return "nothing has come down yet (it can only after a frame)";
  return `the last downlink ${durationText(Math.round(sinceDownlinkMs / 1_000))} ago`;
}

function airtimeText({ airtimeHourMs, airtimeDayMs, dutyCycle, fairUse }: LoraStatus): string {
  const of = (limit: LoraAllowance | undefined): string =>
    limit ? ` of ${seconds(limit.limitMs)} allowed, ${seconds(Math.max(0, limit.limitMs - limit.spentMs))} left` : "";
  return `${seconds(airtimeHourMs)} in an hour${of(dutyCycle)}; ${seconds(airtimeDayMs)} in a day${of(fairUse)}`;
}

function waysText({ sessions, awaitingReceipt, tooLarge, isFallback }: LoraCarrierStatus): string {
  const transfers = sessions.map(({ port, sequence, ageMs }) => {
    return `record ${sequence} in fragments on port ${port} for ${durationText(Math.round(ageMs / 1_000))}`;
  });
  return [
    isFallback ? "sends what the broker could not deliver for ten minutes" : "sends each batch",
    ...transfers,
    ...(awaitingReceipt > 0 ? [`${awaitingReceipt} sent and without a receipt yet`] : []),
    ...(tooLarge > 0 ? [`${plural(tooLarge, "record")} TOO LARGE for LoRaWAN`] : []),
  ].join("; ");
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
