/**
 * Readings as plain values for a home: one MQTT topic a quantity, and the description by which Home Assistant finds it (MQTT
 * discovery of sensors: https://www.home-assistant.io/integrations/sensor.mqtt/). Nothing here is signed; nothing accepts a command.
 */
import { decimalText, type Quantity, quantityOfCode } from "./quantity.ts";

export const homeTopicRoot = "ecp-home";
const discoveryPrefix = "homeassistant";

/** Who publishes: the hub itself, or a full node that got its records. */
export type HomeSource = "hub" | "node";

export interface HomeMeter {
  readonly source: HomeSource;
  /** Multibase name of the device. */
  readonly device: string;
  readonly meter: number;
  /** For people. */
  readonly name: string;
  /** Seconds without a new value after which Home Assistant shows the sensor as unavailable. */
  readonly expireAfterS: number;
}

export interface HomeMessage {
  readonly topic: string;
  readonly payload: string;
}

/** How a quantity is shown: device and state classes of https://www.home-assistant.io/integrations/sensor/ and the unit they ask for. */
interface HomeClass {
  readonly device?: string;
  readonly state: "measurement" | "total_increasing";
  readonly unit?: string;
  readonly decimals: number;
}

const classOfUnit: Readonly<Record<string, Omit<HomeClass, "state">>> = {
  W: { device: "power", unit: "kW", decimals: 3 },
  Wh: { device: "energy", unit: "kWh", decimals: 3 },
  var: { device: "reactive_power", unit: "var", decimals: 0 },
  varh: { device: "reactive_energy", unit: "varh", decimals: 0 },
  VA: { device: "apparent_power", unit: "VA", decimals: 0 },
  mV: { device: "voltage", unit: "V", decimals: 3 },
  mA: { device: "current", unit: "A", decimals: 3 },
  mHz: { device: "frequency", unit: "Hz", decimals: 3 },
};

const classOfName: Readonly<Record<string, HomeClass>> = {
  "power-factor": { device: "power_factor", state: "measurement", decimals: 3 },
  "storage-state-of-charge": { device: "battery", state: "measurement", unit: "%", decimals: 1 },
  "storage-state-of-health": { state: "measurement", unit: "%", decimals: 1 },
  "storage-energy-available": { device: "energy_storage", state: "measurement", unit: "kWh", decimals: 3 },
  "storage-capacity": { device: "energy_storage", state: "measurement", unit: "kWh", decimals: 3 },
};

/** What says nothing about now: settings, forecasts, and energies of intervals, which a register says better. */
const leftOut: ReadonlySet<string> = new Set([
  ...["storage-charge-power-max", "storage-discharge-power-max", "storage-state", "storage-cycles", "power-peak-max"],
  ...["annual-production-expected", "interval-energy-import", "interval-energy-export"],
]);

function classOf({ name, unit, cumulative }: Quantity): HomeClass | undefined {
  if (leftOut.has(name)) return undefined;
  const byUnit = classOfUnit[unit];
  return classOfName[name] ?? (byUnit && { ...byUnit, state: cumulative ? "total_increasing" : "measurement" });
}

/** Where it is said whether somebody publishes: `online`, or by the last will `offline`. */
export function homeAvailabilityTopic(source: HomeSource, publisher: string): string {
  return `${homeTopicRoot}/${source}/${publisher}/availability`;
}

/** A value as text, exact, in the unit that its description names; undefined for what a home is not told. */
export function homeValue(meter: HomeMeter, code: number, value: number): HomeMessage | undefined {
  const quantity = quantityOfCode(code);
  const shown = quantity && classOf(quantity);
  if (quantity === undefined || shown === undefined) return undefined;
  return { topic: valueTopic(meter, quantity), payload: decimalText(value, shown.decimals) };
}

function valueTopic({ source, device, meter }: HomeMeter, { name }: Quantity): string {
  return `${homeTopicRoot}/${source}/${device}/${meter}/${name}`;
}

/** The description of one quantity of a meter, to be retained at its topic; undefined for what a home is not told. */
export function homeDiscovery(
  meter: HomeMeter,
  code: number,
  publisher: string,
  softwareVersion: string,
): HomeMessage | undefined {
  const quantity = quantityOfCode(code);
  const shown = quantity && classOf(quantity);
  if (quantity === undefined || shown === undefined) return undefined;
  const { source, device } = meter;
  const owner = `ecp_${source}_${device}_${meter.meter}`;
  const uniqueId = `${owner}_${quantity.name.replaceAll("-", "_")}`;
  const payload = {
    name: quantity.name.replaceAll("-", " "),
    unique_id: uniqueId,
    state_topic: valueTopic(meter, quantity),
    ...(shown.device && { device_class: shown.device }),
    state_class: shown.state,
    ...(shown.unit && { unit_of_measurement: shown.unit }),
    suggested_display_precision: shown.decimals,
    expire_after: meter.expireAfterS,
    availability_topic: homeAvailabilityTopic(source, publisher),
    payload_available: "online",
    payload_not_available: "offline",
    device: { identifiers: [owner], name: meter.name, manufacturer: "Energy Commons", model: `meter ${meter.meter}` },
    origin: { name: `ecp ${source}`, sw_version: softwareVersion },
  };
  return { topic: `${discoveryPrefix}/sensor/${uniqueId}/config`, payload: JSON.stringify(payload) };
}
