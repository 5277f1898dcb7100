/** Messages made of genuine ones by who has not the key: what a broker, a gateway, or another member of the community could send. */
import {
  algorithmEd25519,
  type CoseSign1,
  contentTypes,
  decodeCose,
  encodeCose,
  toBeSigned,
} from "../protocol/cose-sign1.ts";
import { type CborMap, type CborValue, decodeCbor, encodeCbor } from "../protocol/deterministic-cbor.ts";
import { kidOf } from "../protocol/public-key.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { keyOfLabel, sha256, type TestKey } from "../test/vectors/signature-suite.ts";
import {
  flippedBit,
  malleated,
  otherEncoding,
  smallOrderPoints,
  smallOrderSignature,
  torsionSignature,
} from "./forged-signature.ts";

export interface Forged {
  readonly kind: string;
  readonly bytes: Uint8Array;
}

/** A genuine message, and the key that signed it, for what only its holder can bend. */
export interface Genuine {
  readonly bytes: Uint8Array;
  readonly key: TestKey;
}

const stranger = keyOfLabel("a forger's key");

type Step = (cose: CoseSign1, random: SeededRandom, genuine: Genuine, other: CoseSign1) => Partial<CoseSign1>;

/** Ways to change one part; what is not named stays, the signature too. */
const steps: Readonly<Record<string, Step>> = {
  "one bit of the signature": ({ signature }, random) => ({ signature: flippedBit(signature, random) }),
  "S + n L": ({ signature }, random) => ({ signature: malleated(signature, random) }),
  "R in another encoding": ({ signature }, random) => ({ signature: otherEncoding(signature, random) }),
  "R of small order, S = 0": (_cose, random) => ({ signature: smallOrderSignature(random) }),
  "random signature": (_cose, random) => ({ signature: random.bytes(64) }),
  "signature of another message": (_cose, _random, _genuine, { signature }) => ({ signature }),
  "R with a torsion part": ({ protectedHeader, payload }, random, { key }) => ({
    signature: torsionSignature(key, toBeSigned(protectedHeader, payload), random),
  }),
  "one bit of the payload": ({ payload }, random) => ({ payload: flippedBit(payload, random) }),
  "another field": ({ payload }, random) => ({ payload: otherField(payload, random) }),
  "payload of another message": (_cose, _random, _genuine, { payload }) => ({ payload }),
  "a stranger's signature under the signer's kid": ({ protectedHeader, payload }) => ({
    signature: stranger.sign(toBeSigned(protectedHeader, payload)),
  }),
  "a stranger's signature under his own kid": ({ protectedHeader, payload }) => ({
    signature: stranger.sign(toBeSigned(protectedHeader, payload)),
    kid: kidOf(stranger.publicKey, sha256),
  }),
  "a kid of small order's key": (_cose, random) => ({
    signature: smallOrderSignature(random),
    kid: kidOf(random.pick(smallOrderPoints), sha256),
  }),
  "another algorithm": ({ contentType }) => ({ protectedHeader: headerOf(algorithmEd25519, contentType) }),
  "another content type": (_cose, random) => ({
    protectedHeader: headerOf(-8, random.pick(Object.values(contentTypes))),
  }),
  "another protected header": ({ protectedHeader }, random) => ({
    protectedHeader: flippedBit(protectedHeader, random),
  }),
};

/** Ways to change the bytes. */
const cuts: Readonly<Record<string, (bytes: Uint8Array, random: SeededRandom) => Uint8Array>> = {
  truncated: (bytes, random) => bytes.slice(0, random.integer(0, bytes.length - 1)),
  extended: (bytes, random) => Uint8Array.from([...bytes, ...random.bytes(random.integer(1, 8))]),
  "another tag": (bytes, random) => bytes.with(0, random.pick([0xd0, 0xd1, 0xd3, 0xc0, 0xd7])),
  "a length in a longer form": (bytes) => Uint8Array.from([0xd2, 0x98, 4, ...bytes.subarray(2)]),
  "an indefinite length": (bytes) => Uint8Array.from([0xd2, 0x9f, ...bytes.subarray(2), 0xff]),
  "one bit anywhere": (bytes, random) => flippedBit(bytes, random),
  "bytes anywhere": (bytes, random) => {
    const at = random.integer(0, bytes.length - 1);
    const noise = random.bytes(random.integer(1, 16));
    return Uint8Array.from([...bytes.subarray(0, at), ...noise, ...bytes.subarray(at + noise.length)]);
  },
};

export const forgeryKinds: readonly string[] = [...Object.keys(steps), ...Object.keys(cuts)];

/** A forgery of this kind; undefined where it came out as the genuine message, but for what is not signed. */
export function forged(kind: string, genuine: Genuine, other: Genuine, random: SeededRandom): Forged | undefined {
  const bytes = bytesOfKind(kind, genuine, other, random);
  return bytes === undefined || isSame(bytes, genuine.bytes) || isSame(bytes, other.bytes)
    ? undefined
    : { kind, bytes };
}

function bytesOfKind(kind: string, genuine: Genuine, other: Genuine, random: SeededRandom): Uint8Array | undefined {
  const cut = cuts[kind];
  if (cut) return cut(genuine.bytes, random);
  const step = steps[kind];
  if (step === undefined) throw new RangeError(kind);
  const cose = decodeCose(genuine.bytes);
  const { protectedHeader, payload, signature, kid } = cose;
  const changed = { protectedHeader, payload, signature, ...(kid && { kid }) };
  return encodeCose({ ...changed, ...step(cose, random, genuine, decodeCose(other.bytes)) });
}

function isSame(bytes: Uint8Array, genuine: Uint8Array): boolean {
  try {
    return digestText(bytes) === digestText(genuine);
  } catch {
    return false;
  }
}

/** Of what is signed and the signature. */
export function digestText(bytes: Uint8Array): string {
  const { protectedHeader, payload, signature } = decodeCose(bytes);
  return Buffer.from(sha256(encodeCose({ protectedHeader, payload, signature }))).toString("hex");
}

function headerOf(algorithm: number, contentType: number): Uint8Array {
  return encodeCbor(
    new Map([
      [1, algorithm],
      [3, contentType],
    ]),
  );
}

/** A number of the payload, wherever it stands, is another one; the encoding stays deterministic. */
function otherField(payload: Uint8Array, random: SeededRandom): Uint8Array {
  const map = decodeCbor(payload) as CborMap;
  const key = random.pick([...map.keys()]);
  map.set(key, otherValue(map.get(key) as CborValue, random));
  return encodeCbor(map);
}

function otherValue(value: CborValue, random: SeededRandom): CborValue {
  if (typeof value === "number") return Math.max(0, value + random.pick([-1, 1, 10, 1_000]));
  if (value instanceof Uint8Array && value.length > 0) return flippedBit(value, random);
  if (Array.isArray(value) && value.length > 0) {
    const at = random.integer(0, value.length - 1);
    return value.with(at, otherValue(value[at] as CborValue, random));
  }
  return random.integer(0, 1_000);
}
