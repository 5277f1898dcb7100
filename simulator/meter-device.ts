/**
 * A simulated meter of any profile: the registers that its table names, filled from a household through the inverse of what
 * a reader does, with the limits of the meter.
 */
import { type MeterProfile, type NumberPlace, type ProfileRegister, registersOf } from "../drivers/modbus/profile.ts";
import type { Household } from "./household.ts";
import { householdQuantities } from "./household-quantities.ts";
import { RegisterImage } from "./register-image.ts";
import { sdm630CountMax, sdm630Image } from "./sdm630-registers.ts";
import {
  exceptionPdu,
  illegalAddress,
  illegalFunction,
  illegalValue,
  readRequestOf,
  type SlaveDevice,
  wordsPdu,
} from "./slave-device.ts";
import type { SlaveFault } from "./slave-fault.ts";

/** What a device that keeps registers is made of. */
export interface RegisterDeviceOptions {
  readonly unit: number;
  /** The registers at the moment of a request. */
  readonly image: () => RegisterImage;
  readonly maxRegistersPerRequest: number;
  /** Addresses and counts must be multiples of this. Default 1. */
  readonly countStep?: number;
  /** Functions that it knows; another one is refused with exception 1. Default 3 and 4. */
  readonly functionCodes?: readonly number[];
  /** Places whose bits can be made to say "not available"; the others are left alone by that fault. */
  readonly absentMarks?: readonly { readonly place: NumberPlace; readonly raw: bigint }[];
  /** Vendor, product code and revision for function 43/14; without it that function is refused. */
  readonly identification?: readonly [vendor: string, product: string, revision: string];
}

/** A device with tables of registers: it refuses what a real one refuses, with the same exceptions. */
export class RegisterDevice implements SlaveDevice {
  readonly unit: number;
  readonly #options: RegisterDeviceOptions;

  constructor(options: RegisterDeviceOptions) {
    this.#options = options;
    this.unit = options.unit;
  }

  answer(pdu: Uint8Array, fault?: SlaveFault): Uint8Array {
    const { maxRegistersPerRequest, countStep = 1, functionCodes = [3, 4], identification } = this.#options;
    const functionCode = pdu[0]!;
    if (functionCode === 43 && identification !== undefined) return identificationPdu(pdu, identification);
    if (!functionCodes.includes(functionCode)) return exceptionPdu(functionCode, illegalFunction);
    const request = readRequestOf(pdu);
    if (request === undefined) return exceptionPdu(functionCode, illegalValue);
    const { address, count } = request;
    if (count === 0 || count > maxRegistersPerRequest || count % countStep !== 0)
      return exceptionPdu(functionCode, illegalValue);
    if (address % countStep !== 0) return exceptionPdu(functionCode, illegalAddress);
    const image = this.#options.image();
    if (fault !== undefined) this.#spoil(image, fault);
    const words = image.read(functionCode, address, count);
    return words === undefined ? exceptionPdu(functionCode, illegalAddress) : wordsPdu(functionCode, words);
  }

  #spoil(image: RegisterImage, fault: SlaveFault): void {
    if (fault.kind !== "not a number" && fault.kind !== "no numbers") return;
    for (const { place, raw } of this.#options.absentMarks ?? [])
      if (fault.kind === "no numbers" || place.address === fault.address) image.setRaw(place, raw);
  }
}

/** "Application Protocol" V1.1b3 §6.21: basic device identification, objects 0 to 2, in one answer. */
function identificationPdu(pdu: Uint8Array, texts: readonly string[]): Uint8Array {
  if (pdu.length !== 4 || pdu[1] !== 14) return exceptionPdu(43, illegalFunction);
  const objects = texts.flatMap((text, id) => [id, text.length, ...Buffer.from(text, "latin1")]);
  return Uint8Array.from([43, 14, pdu[2]!, 0x01, 0, 0, texts.length, ...objects]);
}

export interface MeterDeviceOptions {
  readonly unit: number;
  readonly household: Household;
  /** The meter's clock, Unix milliseconds. */
  readonly now: () => number;
  /** What its serial number registers tell. */
  readonly serialNumber: number;
  /** Raw values of its settings by name; a setting that is not named has the first of its accepted values. */
  readonly modes?: Readonly<Record<string, number>>;
  /** Stretches that this model does not have: requests that touch them are refused with exception 2. */
  readonly missing?: readonly { readonly functionCode: 3 | 4; readonly address: number; readonly count: number }[];
  readonly identification?: readonly [vendor: string, product: string, revision: string];
}

/** A meter of this profile in a house. */
export function meterDevice(profile: MeterProfile, options: MeterDeviceOptions): RegisterDevice {
  const { unit, household, now, serialNumber, missing = [], identification } = options;
  const wholeSdm630 = profile.id === "eastron-sdm630";
  const places = placesOf(profile);
  const wiring = profile.codes.includes(21) ? "three" : "single";
  return new RegisterDevice({
    unit,
    image: () => {
      const nowMs = now();
      const image = wholeSdm630 ? sdm630Image(household.at(nowMs)) : new RegisterImage();
      fillImage(image, profile, places, householdQuantities(household, nowMs, wiring), options.modes ?? {});
      setSerialNumber(image, profile, serialNumber);
      for (const { functionCode, address, count } of missing) image.remove(functionCode, address, count);
      return image;
    },
    maxRegistersPerRequest: wholeSdm630 ? sdm630CountMax : profile.maxRegistersPerRequest,
    countStep: profile.countStep,
    functionCodes: [...new Set(places.map(({ functionCode }) => functionCode))],
    absentMarks: profile.registers.flatMap((register) => {
      const raw = absentRaw(register);
      return raw === undefined ? [] : [{ place: register, raw }];
    }),
    ...(identification && { identification }),
  });
}

/** A meter that shows these registers and no others, whatever the time: for tests with hand-made values. */
export function imageDevice(
  profile: Pick<MeterProfile, "maxRegistersPerRequest" | "countStep">,
  unit: number,
  image: RegisterImage,
): RegisterDevice {
  return new RegisterDevice({ unit, image: () => image, ...profile });
}

interface Stretch {
  readonly functionCode: 3 | 4;
  readonly address: number;
  readonly count: number;
}

/** At least so many registers are there from the probe on (profile.ts: probe). */
const probeRegisters = 20;

/** Everything that a reader of this profile may ask for. */
function placesOf(profile: MeterProfile): Stretch[] {
  const ofNumber = ({ functionCode, address, type }: NumberPlace): Stretch => ({
    functionCode,
    address,
    count: registersOf(type),
  });
  const others = [...profile.serialNumbers, ...profile.recognition].map(
    (place): Stretch => ("wordOrder" in place ? ofNumber(place) : place),
  );
  return [
    ...profile.registers.map(ofNumber),
    ...profile.modes.map(ofNumber),
    ...others,
    { ...profile.probe, count: probeRegisters },
  ];
}

/**
 * Registers exist from the first to the last of each group whose members one request could span: real meters answer 0 in
 * such gaps, and readers ask across them.
 */
function coverStretches(image: RegisterImage, profile: MeterProfile, stretches: readonly Stretch[]): void {
  for (const functionCode of [3, 4] as const) {
    const sorted = stretches
      .filter((stretch) => stretch.functionCode === functionCode)
      .sort((a, b) => a.address - b.address);
    let [start, end] = [0, -1];
    for (const { address, count } of sorted) {
      if (end < 0 || address - end >= profile.maxRegistersPerRequest) {
        if (end >= 0) coverEven(image, functionCode, start, end, profile.countStep);
        [start, end] = [address, address + count];
      } else {
        end = Math.max(end, address + count);
      }
    }
    if (end >= 0) coverEven(image, functionCode, start, end, profile.countStep);
  }
}

/** The stretch widened to whole steps, so that a value of one register can be asked for where counts are even. */
function coverEven(image: RegisterImage, functionCode: 3 | 4, start: number, end: number, step: number): void {
  const first = Math.floor(start / step) * step;
  image.cover(functionCode, first, Math.min(0x10000, Math.ceil(end / step) * step) - first);
}

function fillImage(
  image: RegisterImage,
  profile: MeterProfile,
  stretches: readonly Stretch[],
  values: ReadonlyMap<number, number>,
  modes: Readonly<Record<string, number>>,
): void {
  coverStretches(image, profile, stretches);
  // What only has to be plausible comes first: a value of the house at the same place is plausible too.
  for (const check of profile.recognition) {
    if ("startsWith" in check) image.setText(check, check.startsWith[0]?.text ?? "");
    else if ("equals" in check) image.setValue(check, check.equals[0]?.raw ?? 0);
    else image.setValue(check, (check.between[0] + check.between[1]) / 2);
  }
  for (const register of profile.registers) setQuantity(image, register, values.get(register.code) ?? 0);
  for (const mode of profile.modes) image.setValue(mode, modes[mode.name] ?? mode.accepted[0] ?? 0);
}

/** The inverse of reading: from the code's unit to what stands in the register. */
function setQuantity(image: RegisterImage, register: ProfileRegister, value: number): void {
  const signed = register.sign === "negative part" ? -value : value;
  const raw = (register.sign === "unsigned" ? Math.max(0, value) : signed) / register.unitsPerValue;
  const { wrapsAfterRaw } = register;
  if (wrapsAfterRaw === undefined || register.type.startsWith("float")) image.setValue(register, raw);
  else image.setRaw(register, BigInt(Math.round(raw)) % (wrapsAfterRaw + 1n));
}

function setSerialNumber(image: RegisterImage, profile: MeterProfile, serialNumber: number): void {
  const [place] = profile.serialNumbers;
  if (place === undefined) return;
  if ("wordOrder" in place) image.setValue(place, serialNumber);
  else image.setText(place, `${serialNumber}`);
}

/** The bits with which a register says that it has no value; undefined where its type knows none. */
function absentRaw({ type, absentRaws }: ProfileRegister): bigint | undefined {
  if (type === "float32") return 0x7fc0_0000n;
  if (type === "float64") return 0x7ff8_0000_0000_0000n;
  return absentRaws[0];
}
