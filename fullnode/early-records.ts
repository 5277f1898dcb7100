/**
 * Records of epochs whose key is not known yet: kept in memory for a while, in case the rotation that announces them comes right behind
 * them. They have no receipt, so a device sends them again in any case.
 */
export const earlyRecordsMax = 1_024;

export class EarlyRecords<T> {
  readonly #byEpoch = new Map<string, T[]>();
  #count = 0;

  keep(name: string, epoch: number, message: T): void {
    const key = `${name}:${epoch}`;
    while (this.#count >= earlyRecordsMax) this.#forgetOldest();
    const list = this.#byEpoch.get(key) ?? [];
    this.#byEpoch.set(key, list);
    list.push(message);
    this.#count++;
  }

  take(name: string, epoch: number): readonly T[] {
    const key = `${name}:${epoch}`;
    const list = this.#byEpoch.get(key) ?? [];
    this.#byEpoch.delete(key);
    this.#count -= list.length;
    return list;
  }

  takeAll(): readonly T[] {
    const all = [...this.#byEpoch.values()].flat();
    this.#byEpoch.clear();
    this.#count = 0;
    return all;
  }

  #forgetOldest(): void {
    const [key, list] = this.#byEpoch.entries().next().value ?? ["", []];
    this.#count -= list.length;
    this.#byEpoch.delete(key);
  }
}
