/** What this machine can verify, and nothing else: OpenSSL's Ed25519 through the callback form of crypto.verify, on all cores. */
import { type KeyObject, verify } from "node:crypto";
import { ed25519PublicKey } from "../fullnode/node-keys.ts";
import { contentTypes, decodeCose, toBeSigned } from "../protocol/cose-sign1.ts";

const inFlightMax = 256;

export interface Signed {
  readonly key: KeyObject;
  readonly message: Uint8Array;
  readonly signature: Uint8Array;
}

export function signedOf(record: Uint8Array, publicKey: Uint8Array): Signed {
  const { protectedHeader, payload, signature } = decodeCose(record, contentTypes.record);
  return { key: ed25519PublicKey(publicKey), message: toBeSigned(protectedHeader, payload), signature };
}

export interface Limit {
  readonly perSecond: number;
  /** CPU time of one verification, over all threads. */
  readonly cpuUs: number;
}

/** Verifies these over and over for so long. Throws where one of them does not hold. */
export function verificationLimit(signed: readonly Signed[], forMs: number): Promise<Limit> {
  return new Promise((resolve, reject) => {
    const fromMs = performance.now();
    const cpuFrom = process.cpuUsage();
    let begun = 0;
    let done = 0;
    const next = (): void => {
      const { key, message, signature } = signed[begun++ % signed.length] as Signed;
      verify(null, message, key, signature, (error, holds) => {
        if (error || !holds) return reject(error ?? new Error("a signature of the benchmark does not hold"));
        done++;
        const tookMs = performance.now() - fromMs;
        if (tookMs < forMs) next();
        else if (done === begun) {
          const { user, system } = process.cpuUsage(cpuFrom);
          resolve({ perSecond: (done / tookMs) * 1_000, cpuUs: (user + system) / done });
        }
      });
    };
    for (let i = 0; i < inFlightMax; i++) next();
  });
}
