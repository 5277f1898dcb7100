/** Verifiers that leave out one check each. What they accept of the forgeries shows that these are worth refusing. */
import { verify } from "node:crypto";
import * as ed25519 from "@noble/ed25519";
import { sha512 } from "@noble/hashes/sha2.js";
import { ed25519PublicKey } from "../fullnode/node-keys.ts";
import { type CoseSign1, decodeCose, toBeSigned } from "../protocol/cose-sign1.ts";
import { publicKeyOfDid } from "../protocol/public-key.ts";
import { Refusal } from "../protocol/refusal.ts";
import type { Forged } from "./forged-message.ts";
import { reducedS } from "./forged-signature.ts";

ed25519.hashes.sha512 = sha512;
/** Noble's verification takes a millisecond: so many of a kind are enough. */
const triedMax = 200;

export class CarelessVerifiers {
  readonly accepted = {
    withCofactor: 0,
    withoutRangeOfS: 0,
    withoutVettedKeys: 0,
    withoutDeviceAndEpoch: 0,
    withoutPinning: 0,
  };
  readonly #tried = new Map<string, number>();

  get smallest(): number {
    return Math.min(...Object.values(this.accepted));
  }

  tryRecord({ kind, bytes }: Forged, publicKey: Uint8Array): void {
    if (!this.#isDue(kind, ["R with a torsion part", "S + n L"])) return;
    const cose = opened(bytes);
    if (cose === undefined) return;
    const { signature } = cose;
    if (holdsWithCofactor(cose, publicKey)) this.accepted.withCofactor++;
    if (reducedS(signature).join() === signature.join()) return;
    if (holds({ ...cose, signature: reducedS(signature) }, publicKey)) this.accepted.withoutRangeOfS++;
  }

  /** A record on the topic of a name whose key is of small order. */
  tryName(name: string, bytes: Uint8Array): void {
    const cose = this.#isDue("name", ["name"]) ? opened(bytes) : undefined;
    if (cose && holdsWithCofactor(cose, publicKeyOfDid(name))) this.accepted.withoutVettedKeys++;
  }

  tryReceipt({ kind, bytes }: Forged, publicKey: Uint8Array): void {
    this.tryRecord({ kind, bytes }, publicKey);
  }

  /** A receipt of another node, or for another device or epoch, by the key that it names itself. */
  tryOther(
    bytes: Uint8Array,
    { publicKey, isPinned }: { readonly publicKey: Uint8Array; readonly isPinned: boolean },
  ): void {
    const cose = opened(bytes);
    if (cose === undefined || !holds(cose, publicKey)) return;
    if (isPinned) this.accepted.withoutDeviceAndEpoch++;
    else this.accepted.withoutPinning++;
  }

  #isDue(kind: string, kinds: readonly string[]): boolean {
    const tried = this.#tried.get(kind) ?? 0;
    if (!kinds.includes(kind) || tried >= triedMax) return false;
    this.#tried.set(kind, tried + 1);
    return true;
  }
}

function opened(bytes: Uint8Array): CoseSign1 | undefined {
  try {
    return decodeCose(bytes);
  } catch (error) {
    if (error instanceof Refusal) return undefined;
    throw error;
  }
}

function messageOf({ protectedHeader, payload }: CoseSign1): Uint8Array {
  return toBeSigned(protectedHeader, payload);
}

/** As ZIP 215 has it: points in any encoding, of any order. */
function holdsWithCofactor(cose: CoseSign1, publicKey: Uint8Array): boolean {
  return ed25519.verify(cose.signature, messageOf(cose), publicKey, { zip215: true });
}

function holds(cose: CoseSign1, publicKey: Uint8Array): boolean {
  return verify(null, messageOf(cose), ed25519PublicKey(publicKey), cose.signature);
}
