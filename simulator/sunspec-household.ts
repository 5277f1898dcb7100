/** A simulated SunSpec device in a house: what the household gives, in the models that the profile reads. */
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { type SunspecPoint, sunspecModels } from "../drivers/modbus/sunspec-models.ts";
import type { Household } from "./household.ts";
import { householdQuantities } from "./household-quantities.ts";
import type { RegisterDevice } from "./meter-device.ts";
import { commonModel, type SunspecModelImage, type SunspecValue, sunspecDevice } from "./sunspec-device.ts";

/** Models of each profile that the device has: id, registers after id and length. */
const modelsOf: Readonly<Record<string, readonly (readonly [id: number, length: number])[]>> = {
  "sunspec-inverter": [
    [103, 50],
    [713, 7],
  ],
  "sunspec-meter": [[203, 105]],
  "sunspec-storage": [
    [713, 7],
    [802, 62],
  ],
};

/** Factors of voltages alternate, so that a reader that keeps them shows itself. */
const fineUnits: ReadonlySet<number> = new Set([20, 21, 22, 23, 24, 25]);

export function sunspecHousehold(
  profile: MeterProfile,
  options: { unit: number; household: Household; now: () => number; serialNumber: number },
): RegisterDevice {
  const { unit, household, now, serialNumber } = options;
  const chosen = modelsOf[profile.id] ?? [];
  const tables = (sunspecModels[profile.id] ?? []).flatMap(({ ids, points }) => ids.map((id) => ({ id, points })));
  const pointsOf = (id: number): readonly SunspecPoint[] => tables.find((table) => table.id === id)?.points ?? [];
  const fine = new Set<string>();
  for (const [id] of chosen)
    for (const { code, scaleOffset } of pointsOf(id))
      if (fineUnits.has(code) || code === 14) fine.add(`${id}:${scaleOffset}`);
  return sunspecDevice({
    unit,
    scaleOf: (model, scaleOffset, answer) => (fine.has(`${model}:${scaleOffset}`) ? -1 - (answer % 2) : 0),
    models: () => {
      const values = householdQuantities(household, now(), "three");
      const images = chosen.map(
        ([id, length]): SunspecModelImage => ({ id, length, values: valuesOfPoints(pointsOf(id), values) }),
      );
      return [commonModel("Simulated", profile.id, `${serialNumber}`), ...images];
    },
  });
}

/** The inverse of reading. Where one register serves three codes, the signed one fills it. */
function valuesOfPoints(points: readonly SunspecPoint[], values: ReadonlyMap<number, number>): SunspecValue[] {
  return points
    .filter(({ sign }) => sign === "signed" || sign === "unsigned")
    .flatMap(({ code, offsets, type, scaleOffset, unitsPerValue }) =>
      offsets.map((offset, i) => ({
        offset,
        type: type as SunspecValue["type"],
        // Tenths are what every factor used here can hold.
        value: i > 0 ? 0 : Math.round((10 * (values.get(code) ?? 0)) / unitsPerValue) / 10,
        ...(scaleOffset !== undefined && { scaleOffset }),
      })),
    );
}
