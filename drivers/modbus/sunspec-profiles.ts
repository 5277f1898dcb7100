/** Profiles of SunSpec devices: their registers are not in a table but found on the device, by the chain of its models. */
import type { MeterProfile } from "./profile.ts";
import { sunspecModels } from "./sunspec-models.ts";

const documents = ["SunSpec Device Information Model Specification", "github.com/sunspec/models, JSON definitions"];

const chain =
  "Models are looked for at register 40000, 0 and 50000; scale factors are read with the values, in the same request.";
const counters = "Energies of models 101 to 103 and 201 to 204 have 32 bits and begin anew after 4294967295 raw units.";

function profile(
  id: string,
  models: readonly string[],
  defaultCodes: readonly number[],
  notes: readonly string[],
): MeterProfile {
  const codes = (sunspecModels[id] ?? []).flatMap(({ points }) => points.map(({ code }) => code));
  return {
    kind: "sunspec",
    id,
    make: "SunSpec",
    models,
    evidence: "maker",
    documents,
    notes: [chain, ...notes],
    lines: ["tcp", "rtu"],
    registers: [],
    modes: [],
    codes: [...new Set(codes)].sort((a, b) => a - b),
    defaultCodes,
    maxRegistersPerRequest: 125,
    countStep: 1,
    gapMs: 20,
    timeoutMs: 1000,
    slowestAnswerMs: 2000,
    probe: { functionCode: 3, address: 40_000 },
    serialNumbers: [],
    recognition: [],
    factory: { unit: 1, bauds: [9600, 19_200, 38_400, 115_200], parities: ["none", "even"], stopBits: 1 },
  };
}

const alternating = [20, 21, 22, 23, 24, 25];

export const sunspecProfiles: readonly MeterProfile[] = [
  profile(
    "sunspec-inverter",
    ["inverter", "models 101 to 103", "111 to 113", "701", "also with storage"],
    [1, 2, 3, 4, 14, 15, 16, 17, 18, 19, ...alternating],
    [
      counters,
      "What the inverter feeds into the grid is export. Models 101 to 113 count no import.",
      "The power factor is that of model 701, whose sign is the active power's; here it is negative where power is fed in. Models 101 to 113 do not say what its sign means, and theirs is left out.",
      "The reactive power is left out: no model says what its sign means.",
      "Models 121, 122, 123, 160, 703 to 712, 801, 803 and 804 give no quantities; 'ecp sunspec' shows what a device has in them.",
    ],
  ),
  profile(
    "sunspec-meter",
    ["meter", "models 201 to 204", "211 to 214"],
    [1, 2, 3, 4, 14, ...alternating],
    [
      counters,
      "Power drawn is positive, as the models have it; some makers turn the sign round, so compare it with the energies.",
      "The power factor is left out: the models do not say what its sign means.",
    ],
  ),
  profile(
    "sunspec-storage",
    ["storage", "models 124", "713", "714", "802"],
    [15, 16, 17, 18, 19, 30],
    [
      "Energy and power of a storage come from its ports in model 714; what flows into it is positive.",
      "The state is the ChaSt of the models: 1 off, 2 empty, 3 discharging, 4 charging, 5 full, 6 holding, 7 testing.",
      "The power of model 802 is left out: the model does not say which direction is positive.",
      "Models 801, 803 and 804 give no quantities: they hold strings and cells.",
    ],
  ),
];
