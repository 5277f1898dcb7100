/** The `uplink: lora:` of hub.yaml, checked for sense. */
import { resolve } from "node:path";
import { type LoraConfiguration, loraPlan, type MeterConfiguration } from "../agent/configuration.ts";
import { loraCodes } from "../agent/lora-codes.ts";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { quantities, quantityOfCode, quantityOfName } from "../protocol/quantity.ts";
import type { WalletPolicy } from "../wallet/policy.ts";
import type { YamlSource } from "./yaml-source.ts";

/** The block's form, as the schema has it. */
export interface LoraFile {
  modem: { path: string; family: LoraConfiguration["modem"]["family"]; baud?: number };
  region: LoraConfiguration["region"];
  slot_s: number;
  quantities?: string[];
  batch_s: "auto" | number;
  fair_use_s_per_day?: number;
  rx1_delay_s: number;
  receipts_h?: number;
  when?: LoraConfiguration["when"];
  state_folder: string;
}

/** As the modules come from their makers (drivers/lora/modem.ts, which hubs without LoRaWAN do not load). */
const baudDefaults: Readonly<Record<LoraFile["modem"]["family"], number>> = {
  rui3: 115_200,
  "lora-e5": 9_600,
  rn2483: 57_600,
  "at-slave": 9_600,
};
const quantityDefault = "active-power-import";
const daySeconds = 86_400;
const at = (...path: readonly (string | number)[]): (string | number)[] => ["uplink", "lora", ...path];

export interface LoraSurroundings {
  readonly folder: string;
  readonly meters: readonly MeterConfiguration[];
  readonly profileOf: (id: string) => MeterProfile;
  /** Paths of the serial lines that meters hang on. */
  readonly serialPaths: readonly string[];
  readonly hasMqtt: boolean;
}

/** Relative paths count from the file's folder. */
export function loraOf(file: LoraFile, surroundings: LoraSurroundings, source: YamlSource): LoraConfiguration {
  const { modem, region, slot_s: slotS, batch_s: batchS, rx1_delay_s: rx1DelayS, when, state_folder: state } = file;
  const { folder, meters, serialPaths, hasMqtt } = surroundings;
  if (serialPaths.includes(modem.path))
    throw source.error(
      at("modem", "path"),
      "a port of its own for the modem",
      `${modem.path}, as a line of meters has`,
    );
  checkSlot(slotS, meters, source);
  if (batchS !== "auto" && (batchS < slotS || batchS % slotS !== 0))
    throw source.error(at("batch_s"), `auto, or a multiple of slot_s (${slotS})`, `${batchS}`);
  const { fair_use_s_per_day: fairUseSPerDay, receipts_h: receiptsH } = file;
  return {
    modem: { path: modem.path, family: modem.family, baud: modem.baud ?? baudDefaults[modem.family] },
    region,
    slotS,
    codes: codesOf(file.quantities, surroundings, source),
    batchS,
    ...(fairUseSPerDay !== undefined && { fairUseSPerDay }),
    rx1DelayS,
    ...(receiptsH !== undefined && { receiptsH }),
    when: when ?? (hasMqtt ? "fallback" : "always"),
    stateFolder: resolve(folder, state),
  };
}

/** A row of this uplink is a reading that the meter gives anyway, with its energies. */
function checkSlot(slotS: number, meters: readonly MeterConfiguration[], source: YamlSource): void {
  if (daySeconds % slotS !== 0) throw source.error(at("slot_s"), "a number of seconds that divides a day", `${slotS}`);
  for (const { name, intervalS, energyIntervalS = intervalS } of meters)
    if (slotS % energyIntervalS !== 0)
      throw source.error(
        at("slot_s"),
        `a multiple of the ${energyIntervalS} s after which the energies of meter ${name} are read`,
        `${slotS}`,
      );
}

function codesOf(given: readonly string[] | undefined, surroundings: LoraSurroundings, source: YamlSource): number[] {
  const { meters, profileOf } = surroundings;
  const read = new Set(meters.flatMap(({ codes, profile }) => codes ?? profileOf(profile).defaultCodes));
  const known = quantities.filter((item) => read.has(item.code) && !item.cumulative).map((item) => item.name);
  const names = given ?? known.filter((name) => name === quantityDefault);
  const codes = names.map((name, place) => {
    const code = quantityOfName(name)?.code;
    if (code !== undefined && read.has(code)) return code;
    const choice = known.join(", ") || "there is none beside the energies, which always go";
    throw source.error(at("quantities", place), `a quantity that a meter is read for: ${choice}`, name);
  });
  for (const { name, codes: own, profile } of meters)
    if (loraCodes(own ?? profileOf(profile).defaultCodes, codes).length === 0)
      throw source.error(
        at("quantities"),
        `a quantity of meter ${name}, of which no energies are read`,
        names.join(", "),
      );
  return codes.filter((code) => quantityOfCode(code)?.cumulative !== true).sort((a, b) => a - b);
}

/** What the wallet must know of it: rows of that slot wait for their batch as long as it may take. */
export function plansOf(lora: LoraConfiguration | undefined): WalletPolicy["plans"] {
  if (lora === undefined) return [];
  const { slotS, batchS } = lora;
  return [{ plan: loraPlan, slotS, sealEveryS: batchS === "auto" ? daySeconds : batchS }];
}
