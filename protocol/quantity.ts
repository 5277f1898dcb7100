/** The quantities that a reading can hold: code, OBIS (IEC 62056-6-1), unit on the wire. Values are integers of that unit. */

export interface Quantity {
  /** Number on the wire. */
  readonly code: number;
  /** Name in configuration, tables and JSON of our own. */
  readonly name: string;
  /** OBIS A-B:C.D.E; undefined where no standard code exists. */
  readonly obis?: string;
  /** Unit of the integer on the wire. */
  readonly unit: string;
  /** How a person reads it: the integer divided by 10^decimals, in this unit. */
  readonly display: { readonly unit: string; readonly decimals: number };
  /** A register that only rises. */
  readonly cumulative?: true;
}

const kW = { unit: "kW", decimals: 3 };
const kWh = { unit: "kWh", decimals: 3 };
const volt = { unit: "V", decimals: 3 };
const ampere = { unit: "A", decimals: 3 };

function quantity(
  code: number,
  name: string,
  obis: string | undefined,
  unit: string,
  display: Quantity["display"],
): Quantity {
  return { code, name, ...(obis && { obis }), unit, display };
}

function register(code: number, name: string, obis: string, unit: string, display: Quantity["display"]): Quantity {
  return { ...quantity(code, name, obis, unit, display), cumulative: true };
}

export const quantities: readonly Quantity[] = [
  quantity(1, "active-power-import", "1-0:1.7.0", "W", kW),
  register(2, "active-energy-import", "1-0:1.8.0", "Wh", kWh),
  quantity(3, "active-power-export", "1-0:2.7.0", "W", kW),
  register(4, "active-energy-export", "1-0:2.8.0", "Wh", kWh),
  quantity(5, "reactive-power-import", "1-0:3.7.0", "var", { unit: "kvar", decimals: 3 }),
  register(6, "reactive-energy-import", "1-0:3.8.0", "varh", { unit: "kvarh", decimals: 3 }),
  quantity(7, "reactive-power-export", "1-0:4.7.0", "var", { unit: "kvar", decimals: 3 }),
  register(8, "reactive-energy-export", "1-0:4.8.0", "varh", { unit: "kvarh", decimals: 3 }),
  quantity(9, "apparent-power-import", "1-0:9.7.0", "VA", { unit: "kVA", decimals: 3 }),
  register(10, "apparent-energy-import", "1-0:9.8.0", "VAh", { unit: "kVAh", decimals: 3 }),
  quantity(11, "apparent-power-export", "1-0:10.7.0", "VA", { unit: "kVA", decimals: 3 }),
  register(12, "apparent-energy-export", "1-0:10.8.0", "VAh", { unit: "kVAh", decimals: 3 }),
  quantity(13, "power-factor", "1-0:13.7.0", "1e-3", { unit: "", decimals: 3 }),
  quantity(14, "frequency", "1-0:14.7.0", "mHz", { unit: "Hz", decimals: 3 }),
  register(15, "storage-charge-energy", "1-2:1.8.0", "Wh", kWh),
  register(16, "storage-discharge-energy", "1-2:2.8.0", "Wh", kWh),
  quantity(17, "storage-power", "1-2:16.7.0", "W", kW),
  quantity(18, "storage-state-of-charge", undefined, "0.1 %", { unit: "%", decimals: 1 }),
  quantity(19, "storage-energy-available", undefined, "Wh", kWh),
  quantity(20, "voltage-l1", "1-0:32.7.0", "mV", volt),
  quantity(21, "voltage-l2", "1-0:52.7.0", "mV", volt),
  quantity(22, "voltage-l3", "1-0:72.7.0", "mV", volt),
  quantity(23, "current-l1", "1-0:31.7.0", "mA", ampere),
  quantity(24, "current-l2", "1-0:51.7.0", "mA", ampere),
  quantity(25, "current-l3", "1-0:71.7.0", "mA", ampere),
  quantity(26, "active-power-l1", "1-0:36.7.0", "W", kW),
  quantity(27, "active-power-l2", "1-0:56.7.0", "W", kW),
  quantity(28, "active-power-l3", "1-0:76.7.0", "W", kW),
  quantity(29, "active-power-net", "1-0:16.7.0", "W", kW),
  quantity(30, "storage-capacity", undefined, "Wh", kWh),
  quantity(31, "storage-state-of-health", undefined, "0.1 %", { unit: "%", decimals: 1 }),
  quantity(32, "storage-cycles", undefined, "1", { unit: "", decimals: 0 }),
  quantity(33, "storage-charge-power-max", undefined, "W", kW),
  quantity(34, "storage-discharge-power-max", undefined, "W", kW),
  quantity(35, "storage-state", undefined, "enum", { unit: "", decimals: 0 }),
  quantity(36, "power-peak-max", undefined, "W", kW),
  quantity(37, "annual-production-expected", undefined, "Wh", kWh),
  register(38, "active-energy-import-tariff-1", "1-0:1.8.1", "Wh", kWh),
  register(39, "active-energy-import-tariff-2", "1-0:1.8.2", "Wh", kWh),
  quantity(40, "interval-energy-import", "1-0:1.29.0", "Wh", kWh),
  quantity(41, "interval-energy-export", "1-0:2.29.0", "Wh", kWh),
  quantity(42, "active-power-import-demand-max", "1-0:1.6.0", "W", kW),
  register(43, "active-energy-export-tariff-1", "1-0:2.8.1", "Wh", kWh),
  register(44, "active-energy-export-tariff-2", "1-0:2.8.2", "Wh", kWh),
];

const byCode = new Map(quantities.map((item) => [item.code, item]));
const byName = new Map(quantities.map((item) => [item.name, item]));

export function quantityOfCode(code: number): Quantity | undefined {
  return byCode.get(code);
}

export function quantityOfName(name: string): Quantity | undefined {
  return byName.get(name);
}

/** Decimal text of an integer with a fixed number of decimals, exact: 53727 with 3 decimals is "53.727". */
export function decimalText(value: number, decimals: number): string {
  const digits = Math.abs(value)
    .toString()
    .padStart(decimals + 1, "0");
  const sign = value < 0 ? "-" : "";
  return decimals === 0 ? sign + digits : `${sign}${digits.slice(0, -decimals)}.${digits.slice(-decimals)}`;
}
