/**
 * Eastron SDM630-Modbus V2, three phases.
 *
 * Addresses: "Eastron SDM630-Modbus V2 User Manual", Modbus protocol V2.0, table of input registers (function 4), each a
 * float32 of two registers, high word first. Serial number: protocol V1.8, holding register 0xFC00 (V2.0 prints another).
 *
 * Known of this meter: address and count must be even. V1.8 and V2.0 allow 80 registers a request, V1.5 allows 60: 60 is
 * safe. Polled faster than every 100 ms some of the family hang. The energies are "since last reset", a float32 of kWh:
 * single Wh are lost above 16.8 MWh. Wired 3P3W, voltages to neutral read 0. Total power is signed, import positive.
 */
import type { MeterProfile, ProfileRegister } from "./profile.ts";

type Row = readonly [
  code: number,
  address: number,
  unitsPerValue: number,
  sign: ProfileRegister["sign"],
  maker: string,
  obis: string,
];

const rows: readonly Row[] = [
  [1, 0x0034, 1, "positive part", "total system power, W", "1-0:1.7.0"],
  [2, 0x0048, 1000, "unsigned", "import active energy, kWh", "1-0:1.8.0"],
  [3, 0x0034, 1, "negative part", "total system power, W", "1-0:2.7.0"],
  [4, 0x004a, 1000, "unsigned", "export active energy, kWh", "1-0:2.8.0"],
  [5, 0x003c, 1, "positive part", "total system reactive power, var", "1-0:3.7.0"],
  [6, 0x004c, 1000, "unsigned", "import reactive energy, kvarh", "1-0:3.8.0"],
  [7, 0x003c, 1, "negative part", "total system reactive power, var", "1-0:4.7.0"],
  [8, 0x004e, 1000, "unsigned", "export reactive energy, kvarh", "1-0:4.8.0"],
  [9, 0x0038, 1, "unsigned", "total system apparent power, VA", "1-0:9.7.0"],
  [10, 0x0050, 1000, "unsigned", "total apparent energy, kVAh", "1-0:9.8.0"],
  [13, 0x003e, 1000, "signed", "total system power factor", "1-0:13.7.0"],
  [14, 0x0046, 1000, "unsigned", "frequency of supply voltages, Hz", "1-0:14.7.0"],
  [20, 0x0000, 1000, "unsigned", "phase 1 line to neutral, V", "1-0:32.7.0"],
  [21, 0x0002, 1000, "unsigned", "phase 2 line to neutral, V", "1-0:52.7.0"],
  [22, 0x0004, 1000, "unsigned", "phase 3 line to neutral, V", "1-0:72.7.0"],
  [23, 0x0006, 1000, "unsigned", "phase 1 current, A", "1-0:31.7.0"],
  [24, 0x0008, 1000, "unsigned", "phase 2 current, A", "1-0:51.7.0"],
  [25, 0x000a, 1000, "unsigned", "phase 3 current, A", "1-0:71.7.0"],
  [26, 0x000c, 1, "signed", "phase 1 power, W", "1-0:36.7.0"],
  [27, 0x000e, 1, "signed", "phase 2 power, W", "1-0:56.7.0"],
  [28, 0x0010, 1, "signed", "phase 3 power, W", "1-0:76.7.0"],
  [29, 0x0034, 1, "signed", "total system power, W", "1-0:16.7.0"],
];

export const eastronSdm630: MeterProfile = {
  kind: "registers",
  id: "eastron-sdm630",
  make: "Eastron",
  models: ["SDM630-Modbus V2"],
  documents: ["Eastron SDM630-Modbus V2 User Manual, Modbus protocol V2.0"],
  notes: [],
  lines: ["rtu"],
  registers: rows.map(([code, address, unitsPerValue, sign, maker, obis]) => ({
    code,
    functionCode: 4,
    address,
    type: "float32",
    wordOrder: "high-first",
    unitsPerValue,
    sign,
    isOptional: false,
    absentRaws: [],
    source: `V2.0, input register 0x${address.toString(16).toUpperCase().padStart(4, "0")}: ${maker}; OBIS ${obis}`,
  })),
  modes: [],
  codes: rows.map(([code]) => code),
  defaultCodes: [1, 2, 3, 4, 13, 14, 20, 21, 22, 23, 24, 25],
  maxRegistersPerRequest: 60,
  countStep: 2,
  gapMs: 100,
  timeoutMs: 500,
  slowestAnswerMs: 1000,
  probe: { functionCode: 4, address: 0x0000 },
  serialNumbers: [{ functionCode: 3, address: 0xfc00, type: "uint32", wordOrder: "high-first" }],
  recognition: [],
  factory: { unit: 1, bauds: [9600, 2400, 4800, 19_200, 38_400], parities: ["none", "even", "odd"], stopBits: 1 },
};
