/** Encrypted records, put together with node:crypto alone: the codec and the cipher under test have no part in it. */
import {
  createCipheriv,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
  type KeyObject,
} from "node:crypto";
import { type RefusalReason } from "../../protocol/refusal.ts";
import { bytesOf, hexOf, sha256 } from "./signature-suite.ts";
import { recordVectors } from "./record-vectors.ts";
import { byteString, flipped, join, type Vector } from "./vector.ts";

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** An X25519 key whose secret is the SHA-256 of a label: nobody's secret. */
export interface TestShare {
  readonly secret: Uint8Array;
  readonly key: KeyObject;
  readonly share: Uint8Array;
}

export function shareOfLabel(label: string): TestShare {
  const secret = sha256(utf8(`ecp test vector: ${label}`));
  const der = Buffer.concat([bytesOf("302e020100300506032b656e04220420"), secret]); // RFC 8410 §7
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  const share = createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32);
  return { secret, key, share: Uint8Array.from(share) };
}

export const deviceShare = shareOfLabel("device share");
export const nodeShare = shareOfLabel("full node share");
const otherNode = shareOfLabel("another node's share");

interface Steps {
  readonly record: Uint8Array;
  readonly node?: TestShare;
  readonly protectedHeader?: Uint8Array;
  readonly padded?: Uint8Array;
  readonly nonce?: Uint8Array;
  readonly kid?: Uint8Array;
  readonly unprotected?: (kid: Uint8Array, nonce: Uint8Array) => Uint8Array;
  readonly tag?: Uint8Array;
}

/** {1: 24, 3: 65007} */
const header = bytesOf("a20118180319fdef");

/** 192 bytes, or twice as many until there is room for the mark. */
function paddedOf(record: Uint8Array): Uint8Array {
  let length = 192;
  while (length <= record.length) length *= 2;
  const padded = new Uint8Array(length);
  padded.set(record);
  padded[record.length] = 0x80;
  return padded;
}

export function encrypted(steps: Steps): Uint8Array {
  const { record, node = nodeShare, protectedHeader = header, padded = paddedOf(record) } = steps;
  const publicKey = createPublicKey(node.key);
  const secret = diffieHellman({ privateKey: deviceShare.key, publicKey });
  const info = join(utf8("ecp/1 encrypted record"), deviceShare.share, node.share);
  const keys = Buffer.from(hkdfSync("sha256", secret, new Uint8Array(0), info, 64));
  const mac = createHmac("sha256", keys.subarray(32)).update(padded).digest();
  const nonce = steps.nonce ?? Uint8Array.from(mac.subarray(0, 12));
  const cipher = createCipheriv("chacha20-poly1305", keys.subarray(0, 32), nonce, { authTagLength: 16 });
  // Enc_structure, RFC 9052 §5.3: ["Encrypt0", protected, external_aad]
  const authenticated = join(bytesOf("8368"), utf8("Encrypt0"), byteString(protectedHeader), bytesOf("40"));
  cipher.setAAD(authenticated, { plaintextLength: padded.length });
  const ciphertext = Buffer.concat([cipher.update(padded), cipher.final(), cipher.getAuthTag()]);
  const kid = steps.kid ?? deviceShare.share;
  return join(
    steps.tag ?? bytesOf("d0"),
    bytesOf("83"),
    byteString(protectedHeader),
    steps.unprotected?.(kid, nonce) ?? join(bytesOf("a204"), byteString(kid), bytesOf("05"), byteString(nonce)),
    byteString(Uint8Array.from(ciphertext)),
  );
}

export function encryptedVectors(): Vector[] {
  const record = bytesOf(recordVectors().find(({ expect }) => expect === "ok")?.hex as string);
  const accepted = (name: string, inside: Uint8Array, node = nodeShare): Vector => ({
    name,
    hex: hexOf(encrypted({ record: inside, node })),
    nodeSecret: hexOf(node.secret),
    expect: "ok",
    meaning: { deviceShare: hexOf(deviceShare.share), record: hexOf(inside) },
  });
  const refused = (name: string, expect: RefusalReason, bytes: Uint8Array, node = nodeShare): Vector => ({
    name,
    hex: hexOf(bytes),
    nodeSecret: hexOf(node.secret),
    expect,
  });
  const good = encrypted({ record });
  const padded = paddedOf(record);
  const endOfRecord = record.length;
  const changedAt = (offset: number, value: number): Uint8Array =>
    padded.map((byte, i) => (i === offset ? value : byte));
  return [
    accepted("a reading of two energies", record),
    accepted("to another node", record, otherNode),
    accepted("one byte", Uint8Array.of(7)),
    accepted("191 bytes, the most that the shortest step holds", new Uint8Array(191).fill(0x80)),
    accepted("192 bytes take the next step", new Uint8Array(192).fill(0)),
    accepted("16,384 bytes, the most that a record has", new Uint8Array(16_384).fill(1)),
    refused("opened by another node", "cannot-decrypt", good, otherNode),
    refused("one bit of the ciphertext changed", "cannot-decrypt", flipped(good, 100)),
    refused("one bit of the tag changed", "cannot-decrypt", flipped(good, good.length - 1)),
    refused("one bit of the nonce changed", "cannot-decrypt", flipped(good, 50)),
    refused("another share as kid", "cannot-decrypt", encrypted({ record, kid: otherNode.share })),
    refused("a share of small order as kid", "cannot-decrypt", encrypted({ record, kid: new Uint8Array(32) })),
    refused("a nonce that does not follow from the record", "bad-nonce", encrypted({ record, nonce: new Uint8Array(12) })),
    refused("padding without its mark", "bad-padding", encrypted({ record, padded: changedAt(endOfRecord, 0) })),
    refused("padding with another byte in it", "bad-padding", encrypted({ record, padded: changedAt(191, 1) })),
    refused("padded by a step too many", "bad-padding", encrypted({ record, padded: join(padded, new Uint8Array(192)) })),
    refused("not padded to a step", "bad-padding", encrypted({ record, padded: padded.slice(0, 190) })),
    refused("nothing but padding", "bad-padding", encrypted({ record, padded: join(bytesOf("80"), new Uint8Array(191)) })),
    refused("without tag 16", "not-cose-encrypt0", good.slice(1)),
    refused("with the tag of a signature", "not-cose-encrypt0", encrypted({ record, tag: bytesOf("d2") })),
    refused(
      "encrypted with AES-GCM as it says",
      "not-cose-encrypt0",
      encrypted({ record, protectedHeader: bytesOf("a201030319fdef") }),
    ),
    refused(
      "with the content type of a record",
      "not-cose-encrypt0",
      encrypted({ record, protectedHeader: bytesOf("a20118180319fde8") }),
    ),
    refused("a kid of 8 bytes", "not-cose-encrypt0", encrypted({ record, kid: deviceShare.share.slice(0, 8) })),
    refused(
      "a header more",
      "not-cose-encrypt0",
      encrypted({
        record,
        unprotected: (kid, nonce) =>
          join(bytesOf("a304"), byteString(kid), bytesOf("05"), byteString(nonce), bytesOf("0600")),
      }),
    ),
    refused("headers in another order", "unsorted-keys", encrypted({
      record,
      unprotected: (kid, nonce) => join(bytesOf("a205"), byteString(nonce), bytesOf("04"), byteString(kid)),
    })),
    refused("a byte behind its end", "trailing-bytes", join(good, bytesOf("00"))),
    refused("cut short", "truncated", good.slice(0, -1)),
    refused("a sealed record as it is", "not-cose-encrypt0", record),
    refused("longer than any", "too-large", join(good, new Uint8Array(30_000))),
  ];
}
