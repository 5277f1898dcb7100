/** Names of keys, public keys, signatures. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { Point } from "@noble/ed25519";
import { sha512 } from "@noble/hashes/sha2.js";
import { didKeyOf } from "../../protocol/public-key.ts";
import { bytesOf, hexOf, keyOfLabel, type TestKey } from "./signature-suite.ts";
import { flipped, join, type Json, type Vector, wallet } from "./vector.ts";

/** B + a point of order 8: passes every test but that of the torsion part. */
const pointOfOrder8 = Point.fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
export const torsionKey = bytesOf(Point.BASE.add(pointOfOrder8).toHex());
export const smallOrderKey = bytesOf(`01${"00".repeat(31)}`);

export function didKeyVectors(): Vector[] {
  const ok = (name: string, text: string, publicKey: string): Vector => ({
    name,
    text,
    expect: "ok",
    meaning: { publicKey },
  });
  const bad = (name: string, text: string): Vector => ({ name, text, expect: "bad-did" });
  return [
    ok(
      "did:key specification, test vector of seed 00…00",
      "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",
      "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
    ),
    ok(
      "did:key specification, test vector of seed 00…01",
      "did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG",
      "4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29",
    ),
    ok(
      "did:key specification, test vector of seed 00…02",
      "did:key:z6MknGc3ocHs3zdPiJbnaaqDi58NGb4pk1Sp9WxWufuXSdxf",
      "7422b9887598068e32c4448a949adb290d0f4e35b9e01b0ee5f1a1e600fe2674",
    ),
    ok(
      "did:key specification, example of §1",
      "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
      "2e6fcce36701dc791488e0d0b1745cc1e33a4c1c9fcc41c63bd343dbbe0970e6",
    ),
    ok(
      "the multibase part alone",
      "z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",
      "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
    ),
    ok("the wallet of these vectors", didKeyOf(wallet.publicKey), hexOf(wallet.publicKey)),
    bad("nothing", ""),
    bad("another method", "did:web:example.org"),
    bad("another method with the same key", "did:peer:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"),
    bad("did:key of a secp256k1 key", "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"),
    bad("did:key of an X25519 key", "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc"),
    bad("one character less", "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooW"),
    bad("one character more", "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWpp"),
    bad("with a fragment", "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp#z6Mk"),
    bad("0 is not a character of base58", "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDoo0p"),
    bad("l is not a character of base58", "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDoolp"),
    bad("multibase prefix of base58flickr", "did:key:Z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"),
    bad("prefix in capitals", "DID:KEY:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"),
    bad("a number above the multicodec's range", `did:key:z6Mk${"z".repeat(44)}`),
    bad("a number below the multicodec's range", `did:key:z6Mk${"1".repeat(44)}`),
  ];
}

export function publicKeyVectors(): Vector[] {
  const ff = (first: string, last: string): string => `${first}${"ff".repeat(30)}${last}`;
  const zero = (first: string, last: string): string => `${first}${"00".repeat(30)}${last}`;
  const bad = (name: string, hex: string): Vector => ({ name, hex, expect: "bad-public-key" });
  const ok = (name: string, hex: string): Vector => ({ name, hex, expect: "ok" });
  return [
    ok("RFC 8032 §7.1 TEST 1", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"),
    ok("RFC 8032 §7.1 TEST 2", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"),
    ok("the base point", `58${"66".repeat(31)}`),
    bad("order 1: the identity", zero("01", "00")),
    bad("order 2", ff("ec", "7f")),
    bad("order 4", zero("00", "00")),
    bad("order 4, negative", zero("00", "80")),
    bad("order 8, 1st", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bad("order 8, 2nd", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    bad("order 8, 3rd", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bad("order 8, 4th", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    bad("order 1, not canonical: negative zero", zero("01", "80")),
    bad("order 2, not canonical: negative zero", ff("ec", "ff")),
    bad("order 4, not canonical: y = p", ff("ed", "7f")),
    bad("order 4, not canonical: y = p, negative", ff("ed", "ff")),
    bad("order 1, not canonical: y = p + 1", ff("ee", "7f")),
    bad("order 1, not canonical: y = p + 1, negative", ff("ee", "ff")),
    bad("not canonical: y = p + 3, a point of the curve", ff("f0", "7f")),
    bad("not canonical: y = 2^255 - 1", ff("ff", "7f")),
    bad("no point of the curve: y = 2", zero("02", "00")),
    bad("with a torsion part: base point + point of order 8", hexOf(torsionKey)),
    bad("with a torsion part: base point + point of order 2", Point.BASE.add(Point.fromHex(ff("ec", "7f"))).toHex()),
    bad("with a torsion part: y = 3", zero("03", "00")),
    bad("no byte", ""),
    bad("31 bytes", "66".repeat(31)),
    bad("33 bytes", `58${"66".repeat(31)}00`),
  ];
}

const groupOrder = 2n ** 252n + 27742317777372353535851937790883648493n;

function littleEndian(bytes: Uint8Array): bigint {
  return BigInt(`0x${hexOf(bytes.toReversed())}`);
}

function scalarBytes(scalar: bigint): Uint8Array {
  return bytesOf(scalar.toString(16).padStart(64, "0")).toReversed();
}

/** A signature whose R has a torsion part: it holds with the cofactor (ZIP 215) and not without (RFC 8032 §5.1.7). */
function torsionSignature(key: TestKey, message: Uint8Array): Uint8Array {
  const head = sha512(key.seed).slice(0, 32);
  head[0] = (head[0] as number) & 248;
  head[31] = ((head[31] as number) & 127) | 64;
  const nonce = 4_711n;
  const r = bytesOf(Point.BASE.multiply(nonce).add(pointOfOrder8).toHex());
  const k = littleEndian(sha512(join(r, key.publicKey, message))) % groupOrder;
  return join(r, scalarBytes((nonce + k * littleEndian(head)) % groupOrder));
}

export function signatureVectors(): Vector[] {
  const source = readFileSync(path.join(import.meta.dirname, "rfc8032-section-7.1.json"), "utf8");
  const tests = JSON.parse(source) as {
    name: string;
    seed: string;
    publicKey: string;
    message: string;
    signature: string;
  }[];
  const first = tests[1] as (typeof tests)[number];
  const signature = bytesOf(first.signature);
  const s = littleEndian(signature.slice(32));
  const message = bytesOf(first.message);
  const bad = (name: string, broken: Uint8Array, more: { [name: string]: Json } = {}): Vector => ({
    name,
    key: first.publicKey,
    message: first.message,
    signature: hexOf(broken),
    expect: "signature-invalid",
    ...more,
  });
  return [
    ...tests.map(
      ({ name, seed, publicKey, ...rest }): Vector => ({ name, seed, key: publicKey, ...rest, expect: "ok" }),
    ),
    bad("S + L: the same signature in another form", join(signature.slice(0, 32), scalarBytes(s + groupOrder))),
    bad("S = 2^256 - 1", join(signature.slice(0, 32), new Uint8Array(32).fill(0xff))),
    bad("R = 0, S = 0", new Uint8Array(64)),
    bad("one bit of R changed", flipped(signature, 31)),
    bad("one bit of S changed", flipped(signature, 63)),
    {
      ...bad("R with a torsion part, made by the key's holder", torsionSignature(keyOfLabel("wallet key"), message)),
      key: hexOf(wallet.publicKey),
      // @noble/ed25519 verifies with the cofactor in both of its modes; node:crypto, which decides what is booked, does not.
      cofactored: "ok",
    },
  ];
}
