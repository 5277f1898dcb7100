/** An agent that has been taken over: what it sends to the wallet, from nearly right to noise. */
import { type CborValue, encodeCbor } from "../protocol/deterministic-cbor.ts";
import { loraReceiptTypes } from "../protocol/lora-receipt.ts";
import { hasValues, statuses } from "../protocol/reading-status.ts";
import { valueMax } from "../protocol/record.ts";
import type { PlanTerms } from "../protocol/wallet-hello.ts";
import { encodeWalletRequest, type SealRequest } from "../protocol/wallet-message.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { NodeFixture, startS, type WalletFixture } from "../test/wallet/wallet-fixture.ts";
import type { PolicyMeter } from "../wallet/policy.ts";

const edges = [
  0,
  1,
  23,
  24,
  59,
  60,
  61,
  255,
  256,
  1_440,
  65_535,
  65_536,
  2 ** 32 - 1,
  2 ** 32,
  valueMax,
  valueMax + 1,
  -1,
];
const rememberedMax = 200;
const carriedMax = 50;

/** What it believes of a meter: it goes on from there, or lies about it. */
interface Believed {
  timeS: number;
}

export class LyingAgent {
  readonly #random: SeededRandom;
  readonly #meters: readonly PolicyMeter[];
  readonly #plans: readonly PlanTerms[];
  readonly #believed = new Map<number, Believed>();
  readonly #said: Uint8Array[] = [];
  /** Genuine receipts that it was given to carry. */
  readonly #carried: Uint8Array[] = [];
  readonly #forger = new NodeFixture("forger");

  constructor(random: SeededRandom, meters: readonly PolicyMeter[], plans: readonly PlanTerms[]) {
    this.#random = random;
    this.#meters = meters;
    this.#plans = plans;
  }

  /** It carries a genuine receipt to the wallet, and keeps a copy. */
  carries(receipt: Uint8Array): void {
    this.#carried.push(receipt);
    if (this.#carried.length > carriedMax) this.#carried.shift();
  }

  /** Its next message. */
  message(wallet: WalletFixture): Uint8Array {
    const random = this.#random;
    const kind = random.integer(1, 100);
    if (kind <= 8 && this.#said.length > 0) return random.pick(this.#said); // again, as it was
    if (kind <= 12) return random.bytes(random.integer(0, 200));
    if (kind <= 20) return encodeCbor(this.#value());
    if (kind <= 30) return this.#mutated(this.#request(wallet));
    const message = this.#request(wallet);
    this.#said.push(message);
    if (this.#said.length > rememberedMax) this.#said.shift();
    return message;
  }

  #request(wallet: WalletFixture): Uint8Array {
    const random = this.#random;
    const id = random.uint32();
    const kind = random.integer(1, 100);
    if (kind <= 70) return encodeWalletRequest(id, this.#seal(wallet));
    if (kind <= 74) return encodeWalletRequest(id, { type: "enrol" });
    if (kind <= 78) {
      const fromS = Math.floor(wallet.clock.wallMs() / 1_000) - random.integer(0, 10_000);
      return encodeWalletRequest(id, {
        type: "statement",
        meter: random.integer(0, 3),
        fromS,
        toS: fromS + random.integer(0, 9_000),
      });
    }
    if (kind <= 84)
      return encodeWalletRequest(id, {
        type: "read",
        from: random.integer(1, 5_000),
        to: random.pick(edges.filter((edge) => edge > 0 && edge < 2 ** 32)),
        ...(random.chance(50) && { bare: true }),
      });
    if (kind <= 92) {
      const receipt = random.chance(50) ? this.#receipt(wallet) : this.#loraReceipt(wallet);
      return encodeWalletRequest(id, { type: "release", receipt });
    }
    if (kind <= 96) return encodeWalletRequest(id, { type: "hello" });
    // A type or a field that nobody knows: "sign this", "give me the key".
    return encodeCbor([random.integer(0, 40), id, new Map([[random.integer(0, 30), this.#value()]])]);
  }

  /** A reading that goes on where the last one was, or lies in one way or several. */
  #seal(wallet: WalletFixture): SealRequest {
    const random = this.#random;
    const nowS = Math.floor(wallet.clock.wallMs() / 1_000);
    const meter = random.chance(97) ? random.pick(this.#meters).index : random.integer(0, 255);
    const plan = random.chance(80) ? 0 : random.chance(80) ? random.pick(this.#plans).plan : random.integer(0, 6);
    const terms = this.#plans.find((one) => one.plan === plan) ?? this.#meters.find(({ index }) => index === meter);
    const slotS = random.chance(98) ? (terms?.slotS ?? 1) : random.integer(0, 86_400);
    const key = meter * 8 + plan;
    const believed = this.#believed.get(key) ?? { timeS: nowS - (nowS % 900) };
    this.#believed.set(key, believed);
    const relative = random.chance(3);
    const count = slotS > 0 && random.chance(25) ? random.integer(2, 60) : 1;
    // Times: the next one; one again; of long ago; of the future.
    const lie = random.integer(1, 100);
    const step = Math.max(1, slotS);
    let timeS = believed.timeS + step;
    if (lie <= 8) timeS = believed.timeS - random.integer(0, 50) * step;
    else if (lie <= 12) timeS = nowS + random.integer(1, 100_000);
    else if (lie <= 30) timeS = nowS - (nowS % step);
    if (relative) timeS = random.integer(1, 100_000);
    // Energy: what an honest meter would show then; or less, or more, by little or by much.
    const energyLie = random.integer(1, 100);
    const offWh =
      energyLie <= 6 ? -random.integer(1, 1_000_000) : energyLie <= 12 ? random.pick([2, 20, 2_000, 100_000_000]) : 0;
    const liesFrom = random.integer(0, count - 1);
    const rows = Array.from({ length: count }, (_, i) => {
      const rowS = Math.max(1, timeS + i * slotS);
      const status = random.chance(97) ? statuses.good : random.integer(0, 11);
      const honestWh = 41_000_000 + Math.floor(Math.max(0, rowS - startS) / 10);
      const values = [Math.max(0, honestWh + (i >= liesFrom ? offWh : 0)), 18_000_000];
      return { timeS: rowS, status, values: hasValues(status) ? values : [] };
    });
    if (!relative && lie > 12) believed.timeS = timeS + (count - 1) * slotS;
    // Caught out, or ahead of the clock, it begins anew.
    if (random.chance(3)) this.#believed.delete(key);
    return {
      type: "seal",
      meter: Math.min(meter, 255),
      plan,
      slotS,
      codes: [2, 4],
      rows,
      ...(relative && { relative }),
      ...(random.chance(plan === 0 ? 2 : 20) && { closes: true }),
    };
  }

  /** It has the shares of both ends, and no secret but its own; and whatever genuine receipts it has carried. */
  #loraReceipt(wallet: WalletFixture): Uint8Array {
    const random = this.#random;
    const carried = this.#carried.length > 0 ? random.pick(this.#carried) : random.bytes(41);
    const kind = random.integer(1, 100);
    if (kind <= 30) return this.#mutated(carried);
    if (kind <= 50) return carried;
    const { epoch, nextSequence } = wallet.journal;
    const forged = this.#forger.loraReceipt(
      {
        type: random.pick(Object.values(loraReceiptTypes)),
        ...{ epoch, sequence: Math.max(1, nextSequence - random.integer(-5, 50)), digest: random.bytes(8) },
      },
      wallet.key.share,
    );
    return random.chance(50) ? forged : forged.with(0, random.integer(0, 255));
  }

  #receipt(wallet: WalletFixture): Uint8Array {
    const random = this.#random;
    const through = random.pick([
      random.integer(1, 10_000),
      wallet.journal.nextSequence - 1,
      wallet.journal.nextSequence + 5,
    ]);
    return this.#forger.receipt(
      {
        device: random.chance(80) ? wallet.kid : random.bytes(8),
        epoch: wallet.journal.epoch,
        through: Math.max(1, through),
        digest: random.bytes(32),
        ...(random.chance(20) && { kept: [{ first: 1, last: Math.max(1, through), digest: random.bytes(32) }] }),
      },
      random.chance(50) ? undefined : wallet.node.kid,
    );
  }

  #mutated(bytes: Uint8Array): Uint8Array {
    const random = this.#random;
    const changed = Uint8Array.from(bytes);
    for (let i = random.integer(1, 4); i > 0; i--)
      changed[random.integer(0, changed.length - 1)] = random.integer(0, 255);
    return random.chance(20) ? changed.subarray(0, random.integer(0, changed.length)) : changed;
  }

  #value(depth = 0): CborValue {
    const random = this.#random;
    switch (random.integer(0, depth > 3 ? 3 : 5)) {
      case 0:
        return random.pick(edges);
      case 1:
        return random.bytes(random.integer(0, 64));
      case 2:
        return random.pick(["", "key", "seed", "ü"]);
      case 3:
        return random.pick([true, false, null]);
      case 4:
        return new Map(
          Array.from({ length: random.integer(0, 4) }, (_, i) => [
            i * 3 + random.integer(0, 2),
            this.#value(depth + 1),
          ]),
        );
      default:
        return Array.from({ length: random.integer(0, 5) }, () => this.#value(depth + 1));
    }
  }
}
