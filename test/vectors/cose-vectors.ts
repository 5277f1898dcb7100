/** The envelope. */
import { contentTypes } from "../../protocol/cose-sign1.ts";
import { kidOf } from "../../protocol/public-key.ts";
import { type RefusalReason } from "../../protocol/refusal.ts";
import { bytesOf, hexOf, sha256 } from "./signature-suite.ts";
import { digestOfWrapped, flipped, join, type Json, protectedHeaderOf, stranger, type Vector, wallet, wrap, type Wrapping } from "./vector.ts";

export function coseVectors(): Vector[] {
  const payload = bytesOf("a10101");
  const key = hexOf(wallet.publicKey);
  const kid = hexOf(kidOf(wallet.publicKey, sha256));
  const header = hexOf(protectedHeaderOf(contentTypes.record));
  const ok = (name: string, wrapping: Partial<Wrapping>, meaning: { [name: string]: Json }): Vector => ({
    name,
    hex: hexOf(wrap(contentTypes.record, payload, { key: wallet, ...wrapping })),
    key,
    expect: "ok",
    meaning: {
      contentType: contentTypes.record,
      payload: hexOf(payload),
      digest: hexOf(digestOfWrapped(contentTypes.record, payload, { key: wallet, ...wrapping })),
      ...meaning,
    },
  });
  const bad = (name: string, expect: RefusalReason, wrapping: Partial<Wrapping>): Vector => ({
    name,
    hex: hexOf(wrap(contentTypes.record, payload, { key: wallet, ...wrapping })),
    key,
    expect,
  });
  const headerBad = (name: string, expect: RefusalReason, hex: string): Vector =>
    bad(name, expect, { protectedHeader: bytesOf(hex) });
  const raw = (name: string, expect: RefusalReason, hex: string): Vector => ({ name, hex, key, expect });
  const body = `4${(header.length / 2).toString(16)}${header}`;
  const signature = `5840${"00".repeat(64)}`;
  return [
    ok("tagged, with kid", {}, { algorithm: -8, kid }),
    ok("untagged, without kid (LoRaWAN)", { tagged: false, unprotectedHex: "a0" }, { algorithm: -8, kid: null }),
    ok("tagged, without kid", { unprotectedHex: "a0" }, { algorithm: -8, kid: null }),
    ok(
      "a kid of another key: a hint, not signed",
      { unprotectedHex: "a104480102030405060708" },
      { algorithm: -8, kid: "0102030405060708" },
    ),
    ok("algorithm -19", { protectedHeader: protectedHeaderOf(contentTypes.record, "32") }, { algorithm: -19, kid }),
    raw("a map", "not-cose-sign1", "a0"),
    raw("an array of three", "not-cose-sign1", `83${body}a040`),
    raw("an array of five", "not-cose-sign1", `85${body}a040${signature}00`),
    raw("protected header as a map", "not-cose-sign1", `84a0a040${signature}`),
    raw("detached payload", "not-cose-sign1", `84${body}a0f6${signature}`),
    raw("COSE_Sign (tag 98)", "tag", `d862${`84${body}a040${signature}`}`),
    raw("tag 18 twice", "tag", `d2d284${body}a040${signature}`),
    headerBad("no protected header", "truncated", ""),
    headerBad("protected header of another type", "bad-protected-header", "80"),
    headerBad("no algorithm", "bad-protected-header", "a10319fde8"),
    headerBad("no content type", "bad-protected-header", "a10127"),
    headerBad("content type as text", "bad-protected-header", "a20127036161"),
    headerBad("a header parameter more", "bad-protected-header", "a301270319fde8044101"),
    headerBad("keys unsorted in the protected header", "unsorted-keys", "a20319fde80127"),
    headerBad("ES256", "unknown-algorithm", "a201260319fde8"),
    headerBad("ML-DSA-44 (-48)", "unknown-algorithm", "a201382f0319fde8"),
    headerBad("crit", "unknown-critical-header", "a3012702810a0319fde8"),
    bad("algorithm in the unprotected header", "bad-unprotected-header", { unprotectedHex: "a10127" }),
    bad("kid and another parameter", "bad-unprotected-header", { unprotectedHex: `a20448${kid}0500` }),
    bad("kid of seven bytes", "bad-unprotected-header", { unprotectedHex: "a10447aabbccddeeff00" }),
    bad("kid as text", "bad-unprotected-header", { unprotectedHex: "a104686162636465666768" }),
    bad("a receipt where a record is expected", "wrong-content-type", {
      protectedHeader: protectedHeaderOf(contentTypes.receipt),
    }),
    bad("signature of 63 bytes", "bad-signature-length", { breakSignature: (bytes) => bytes.slice(1) }),
    bad("signature of 65 bytes", "bad-signature-length", { breakSignature: (bytes) => join(bytes, Uint8Array.of(0)) }),
    bad("one bit changed in R", "signature-invalid", { breakSignature: (bytes) => flipped(bytes, 0) }),
    bad("one bit changed in S", "signature-invalid", { breakSignature: (bytes) => flipped(bytes, 32) }),
    bad("a signature of zeros", "signature-invalid", { breakSignature: () => new Uint8Array(64) }),
    bad("signed by another key", "signature-invalid", { key: stranger }),
  ];
}
