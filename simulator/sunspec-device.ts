/**
 * A simulated SunSpec inverter with storage, or meter. Its scale factors change from answer to answer, as the specification
 * allows: the same power is 2345 × 10^0 in one answer and 2346 × 10^1 / 10 … in another.
 */
import { emptyModelWords } from "../drivers/modbus/sunspec-points.ts";
import { RegisterDevice } from "./meter-device.ts";
import { RegisterImage } from "./register-image.ts";

/** A value in a model; offsets count from the model's id. */
export interface SunspecValue {
  readonly offset: number;
  readonly type: "int16" | "uint16" | "int32" | "uint32" | "uint64" | "float32";
  readonly value: number;
  /** Where its scale factor stands: then the register holds value ÷ 10^factor. */
  readonly scaleOffset?: number;
}

export interface SunspecModelImage {
  readonly id: number;
  /** Registers after id and length. */
  readonly length: number;
  readonly values: readonly SunspecValue[];
  readonly texts?: readonly { readonly offset: number; readonly count: number; readonly text: string }[];
}

export interface SunspecDeviceOptions {
  readonly unit: number;
  /** Where "SunS" stands. Default 40000. */
  readonly base?: number;
  /** What the device holds at the moment of a request. */
  readonly models: () => readonly SunspecModelImage[];
  /** The scale factor of a register at the n-th answer. Default: always 0. */
  readonly scaleOf?: (model: number, scaleOffset: number, answer: number) => number;
}

/** A SunSpec device: model 1 and the given ones, then the end. */
export function sunspecDevice(options: SunspecDeviceOptions): RegisterDevice {
  const { unit, base = 40_000, models, scaleOf = () => 0 } = options;
  let answers = 0;
  return new RegisterDevice({
    unit,
    image: () => {
      const image = new RegisterImage();
      put(image, base, [0x5375, 0x6e53]);
      let address = base + 2;
      for (const model of models()) {
        putModel(image, address, model, (scaleOffset) => scaleOf(model.id, scaleOffset, answers));
        address += 2 + model.length;
      }
      put(image, address, [0xffff, 0]);
      answers++;
      return image;
    },
    maxRegistersPerRequest: 125,
    functionCodes: [3],
  });
}

function put(image: RegisterImage, address: number, words: readonly number[]): void {
  words.forEach((word, i) => {
    image.setWord(3, address + i, word);
  });
}

function putModel(
  image: RegisterImage,
  address: number,
  { id, length, values, texts = [] }: SunspecModelImage,
  scaleOf: (scaleOffset: number) => number,
): void {
  put(image, address, [...emptyModelWords(id, 2 + length)]);
  for (const { offset, type, value, scaleOffset } of values) {
    const scale = scaleOffset === undefined ? 0 : scaleOf(scaleOffset);
    if (scaleOffset !== undefined) put(image, address + scaleOffset, [scale & 0xffff]);
    const place = { functionCode: 3, address: address + offset, wordOrder: "high-first" } as const;
    if (type === "float32") image.setValue({ ...place, type }, value);
    else image.setRaw({ ...place, type }, BigInt(Math.round(value / 10 ** scale)));
  }
  for (const { offset, count, text } of texts)
    image.setText({ functionCode: 3, address: address + offset, type: "ascii", count }, text);
}

/** Model 1 of a device. */
export function commonModel(make: string, model: string, serial: string): SunspecModelImage {
  return {
    id: 1,
    length: 66,
    values: [],
    texts: [
      { offset: 2, count: 16, text: make },
      { offset: 18, count: 16, text: model },
      { offset: 50, count: 16, text: serial },
    ],
  };
}
