/** Names that are keys of small order, and what can be signed under them by anybody. */
import { contentTypes, decodeCose, encodeCose, signCose } from "../protocol/cose-sign1.ts";
import { encodeCbor } from "../protocol/deterministic-cbor.ts";
import { kidOf, multibaseOf } from "../protocol/public-key.ts";
import { encodeRecordPayload } from "../protocol/record.ts";
import { DeviceFixture } from "../test/fullnode/device-fixture.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { nodeKey, sha256 } from "../test/vectors/signature-suite.ts";
import { flippedBit, secretlessSignature, smallOrderPoints, smallOrderSignature } from "./forged-signature.ts";

/** Records on the topics of names that nobody owns, each with a signature that holds for one message in eight. */
export function recordsOfSmallOrderNames(
  random: SeededRandom,
  count: number,
): { readonly name: string; readonly bytes: Uint8Array }[] {
  return Array.from({ length: count }, () => {
    const publicKey = random.pick(smallOrderPoints);
    const payload = encodeRecordPayload({
      kind: "reading",
      ...{ epoch: random.uint32(), sequence: 1, previous: new Uint8Array(16), clockState: 0, generation: 0 },
      ...{ meter: 0, plan: 0, slotS: 0, codes: [2] },
      rows: [{ timeS: random.uint32(), status: 0, values: [random.integer(0, 1_000_000)] }],
    });
    const { protectedHeader } = decodeCose(signCose(contentTypes.record, payload, () => new Uint8Array(64)));
    const signature = random.chance(50) ? secretlessSignature(random) : smallOrderSignature(random);
    const kid = kidOf(publicKey, sha256);
    return { name: multibaseOf(publicKey), bytes: encodeCose({ protectedHeader, payload, signature, kid }) };
  });
}

/** Enrolment requests that were changed, or are of keys of small order. */
export function forgedRequests(random: SeededRandom, count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => {
    const device = new DeviceFixture(random.uint32(), nodeKey(random.bytes(32)));
    const genuine = device.request();
    if (i % 2 === 0) {
      // The kid is not signed: a bit of it changes nothing.
      const { protectedHeader, payload, signature } = decodeCose(genuine);
      return i % 4 === 0
        ? encodeCose({ protectedHeader, payload: flippedBit(payload, random), signature })
        : encodeCose({ protectedHeader, payload, signature: flippedBit(signature, random) });
    }
    const publicKey = random.pick(smallOrderPoints);
    const payload = encodeCbor(
      new Map<number, number | string | Uint8Array | never[]>([
        [1, 1],
        [2, publicKey],
        [3, new Uint8Array(32).fill(9)],
        [4, random.uint32()],
        [5, 1_700_000_000],
        [6, "forged"],
        [7, []],
      ]),
    );
    return signCose(
      contentTypes.enrolmentRequest,
      payload,
      () => (random.chance(50) ? secretlessSignature(random) : smallOrderSignature(random)),
      kidOf(publicKey, sha256),
    );
  });
}
