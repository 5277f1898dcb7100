/** The registers of a simulated meter: words by table and address, written as the types of a profile say. */
import { type NumberPlace, registersOf, type TextPlace } from "../drivers/modbus/profile.ts";

/** Words by address in the two tables of registers. What was never set does not exist: a request for it is refused. */
export class RegisterImage {
  readonly #words = new Map<number, number>();

  /** Makes registers exist; those that hold nothing yet are 0. */
  cover(functionCode: 3 | 4, address: number, count: number): void {
    for (let i = 0; i < count; i++) {
      const key = keyOf(functionCode, address + i);
      if (!this.#words.has(key)) this.#words.set(key, 0);
    }
  }

  /** Takes registers away: a request that touches one is refused with exception 2. */
  remove(functionCode: 3 | 4, address: number, count: number): void {
    for (let i = 0; i < count; i++) this.#words.delete(keyOf(functionCode, address + i));
  }

  setWord(functionCode: 3 | 4, address: number, word: number): void {
    this.#words.set(keyOf(functionCode, address), word & 0xffff);
  }

  /** Sets the bits of a number of any type: `raw` in two's complement or as the bits of the float. */
  setRaw(place: NumberPlace, raw: bigint): void {
    const count = registersOf(place.type);
    const bits = BigInt.asUintN(16 * count, raw);
    for (let i = 0; i < count; i++) {
      const fromHigh = place.wordOrder === "high-first" ? i : count - 1 - i;
      const word = Number((bits >> BigInt(16 * (count - 1 - fromHigh))) & 0xffffn);
      this.setWord(place.functionCode, place.address + i, word);
    }
  }

  /** Sets a value: the nearest that the type can hold. */
  setValue(place: NumberPlace, value: number): void {
    this.setRaw(place, rawOf(place.type, value));
  }

  /** Sets a text, filled up with spaces; cut where it is too long. */
  setText(place: TextPlace, text: string): void {
    const perRegister = place.type === "ascii" ? 2 : 1;
    const padded = text.slice(0, place.count * perRegister).padEnd(place.count * perRegister, " ");
    for (let i = 0; i < place.count; i++) {
      const code = (at: number): number => padded.charCodeAt(at) & 0x7f;
      const word = perRegister === 2 ? (code(2 * i) << 8) | code(2 * i + 1) : code(i);
      this.setWord(place.functionCode, place.address + i, word);
    }
  }

  /** Words of a stretch; undefined where one of them does not exist. */
  read(functionCode: number, address: number, count: number): Uint16Array | undefined {
    const words = new Uint16Array(count);
    for (let i = 0; i < count; i++) {
      const word = this.#words.get(keyOf(functionCode, address + i));
      if (word === undefined) return undefined;
      words[i] = word;
    }
    return words;
  }

  has(functionCode: number, address: number): boolean {
    return this.#words.has(keyOf(functionCode, address));
  }
}

function keyOf(functionCode: number, address: number): number {
  return functionCode * 0x10000 + address;
}

/** The bits of a value in a type; integers are rounded, and held within what the type can say. */
function rawOf(type: NumberPlace["type"], value: number): bigint {
  const view = new DataView(new ArrayBuffer(8));
  if (type === "float32") {
    view.setFloat32(0, value);
    return BigInt(view.getUint32(0));
  }
  if (type === "float64") {
    view.setFloat64(0, value);
    return view.getBigUint64(0);
  }
  const bits = BigInt(16 * registersOf(type));
  const [min, max] = type.startsWith("u") ? [0n, (1n << bits) - 1n] : [-(1n << (bits - 1n)), (1n << (bits - 1n)) - 1n];
  const whole = BigInt(Math.round(Number.isFinite(value) ? value : 0));
  return whole < min ? min : whole > max ? max : whole;
}
