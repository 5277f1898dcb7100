/**
 * The ECP metering packet: the JSON model of one reading with its 27 keys, in both directions. Numbers are written with
 * eight decimals as in the public sample, zeros included, so that key order and zeros survive. One Wh, W, mHz … is the
 * resolution: both ways lossless at it; float32 artefacts such as 53.72700119 are read as 53727 Wh.
 */
import { decimalText } from "./quantity.ts";
import { Refusal } from "./refusal.ts";

/** The 27 keys in their order; a number is the quantity code that the key holds, in thousandths. */
const packetKeys = [
  ["Active_power_imported_kW", 1],
  ["Active_energy_imported_kWh", 2],
  ["Active_power_exported_kW", 3],
  ["Active_energy_exported_kWh", 4],
  ["Reactive_power_imported_kVAR", 5],
  ["Reactive_energy_imported_kVARh", 6],
  ["Reactive_power_exported_kVAR", 7],
  ["Reactive_energy_exported_kVARh", 8],
  ["Apparent_power_imported_kVA", 9],
  ["Apparent_energy_imported_kVAh", 10],
  ["Apparent_power_exported_kVA", 11],
  ["Apparent_energy_exported_kVAh", 12],
  ["Power_factor", 13],
  ["Supply_frequency_Hz", 14],
  ["FREE_VAL_15", 15],
  ["FREE_VAL_16", 16],
  ["FREE_VAL_17", 17],
  ["FREE_VAL_18", 18],
  ["FREE_VAL_19", 19],
  ["User_data", "text"],
  ["Application_data", "text"],
  ["Application_UID", "text"],
  ["Application_type", "text"],
  ["Energy_price_for_client", "decimal"],
  ["Currency", "text"],
  ["Maximum_power_kWp", 36],
  ["Expected_annual_production", 37],
] as const;

const stateOfCharge = 18; // the one quantity here that is in tenths (of a percent), not thousandths
const packetDecimals = 8;

/** Application fields that travel beside the quantities. `priceE8` is the price in 1e-8 of the currency. */
export interface PacketTexts {
  readonly userData: string;
  readonly applicationData: string;
  readonly applicationUid: string;
  readonly applicationType: string;
  readonly currency: string;
  readonly priceE8: number;
}

export const noTexts: PacketTexts = {
  userData: "",
  applicationData: "",
  applicationUid: "",
  applicationType: "",
  currency: "",
  priceE8: 0,
};

const textFields = {
  User_data: "userData",
  Application_data: "applicationData",
  Application_UID: "applicationUid",
  Application_type: "applicationType",
  Currency: "currency",
} as const;

function decimalsOf(code: number): number {
  return code === stateOfCharge ? 1 : 3;
}

/** The packet as JSON text: all 27 keys in order, quantities that are not given as 0.00000000. */
export function meteringPacketText(values: ReadonlyMap<number, number>, texts: PacketTexts = noTexts): string {
  const members = packetKeys.map(([name, content]) => {
    if (content === "text") return `${JSON.stringify(name)}:${JSON.stringify(texts[textFields[name]])}`;
    if (content === "decimal") return `${JSON.stringify(name)}:${decimalText(texts.priceE8, packetDecimals)}`;
    const decimals = decimalsOf(content);
    const padding = "0".repeat(packetDecimals - decimals);
    return `${JSON.stringify(name)}:${decimalText(values.get(content) ?? 0, decimals)}${padding}`;
  });
  return `{${members.join(",")}}`;
}

/** Reads a packet (already parsed JSON). Throws {@link Refusal} on a missing, unknown or ill-typed key. */
export function readMeteringPacket(packet: unknown): { values: Map<number, number>; texts: PacketTexts } {
  if (typeof packet !== "object" || packet === null || Array.isArray(packet))
    throw new Refusal("bad-field", "a JSON object was expected");
  const given = new Map<string, unknown>(Object.entries(packet));
  const values = new Map<number, number>();
  const texts: Record<keyof PacketTexts, string | number> = { ...noTexts };
  for (const [name, content] of packetKeys) {
    const value = given.get(name);
    if (value === undefined) throw new Refusal("missing-field", name);
    given.delete(name);
    if (content === "text") {
      if (typeof value !== "string" || value.length > 1_024) throw new Refusal("bad-field", `${name} is not a text`);
      texts[textFields[name]] = value;
      continue;
    }
    const decimals = content === "decimal" ? packetDecimals : decimalsOf(content);
    const number = typeof value === "number" ? Math.round(value * 10 ** decimals) : Number.NaN;
    if (!Number.isSafeInteger(number)) throw new Refusal("bad-field", `${name} is not a number in range`);
    if (content === "decimal") texts.priceE8 = number;
    else values.set(content, number === 0 ? 0 : number);
  }
  for (const name of given.keys()) throw new Refusal("bad-field", `${name.slice(0, 40)} is not one of the 27 keys`);
  return { values, texts: texts as unknown as PacketTexts };
}
