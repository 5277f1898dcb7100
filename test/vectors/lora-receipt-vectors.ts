/** Receipts of 41 bytes, put together with node:crypto alone: the codec and the agreement under test have no part in it. */
import { createHmac, createPublicKey, diffieHellman, hkdfSync } from "node:crypto";
import { type RefusalReason } from "../../protocol/refusal.ts";
import { deviceShare, nodeShare, shareOfLabel, type TestShare } from "./encryption-vectors.ts";
import { bytesOf, hexOf } from "./signature-suite.ts";
import { digestOfLabel, flipped, type Json, join, type Vector } from "./vector.ts";

interface Fields {
  readonly type: number;
  readonly epoch: number;
  readonly sequence: number;
  readonly bitmapHex: string;
  readonly digest: Uint8Array;
  readonly timeS: number;
}

const digest = digestOfLabel("the record named").slice(0, 8);
const through: Fields = {
  ...{ type: 1, epoch: 0x1234_5678, sequence: 4_711, bitmapHex: "00000000", digest, timeS: 1_774_008_000 },
};
const nothing: Fields = { ...through, sequence: 0, digest: new Uint8Array(8) };
const behindGap: Fields = { ...through, type: 2, sequence: 70_000 };

function integer(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
}

function signedPart({ type, epoch, sequence, bitmapHex, digest, timeS }: Fields): Uint8Array {
  return join(Uint8Array.of(type), integer(epoch), integer(sequence), bytesOf(bitmapHex), digest, integer(timeS));
}

/** The MAC of the node, whose key is agreed with the device of `share`. */
function macOf(signed: Uint8Array, share: TestShare, node: TestShare): Uint8Array {
  const secret = diffieHellman({ privateKey: node.key, publicKey: createPublicKey(share.key) });
  const info = join(new TextEncoder().encode("ecp lorawan receipt 1"), share.share, node.share);
  const key = new Uint8Array(hkdfSync("sha256", secret, new Uint8Array(0), info, 32));
  return Uint8Array.from(createHmac("sha256", key).update(signed).digest().subarray(0, 16));
}

/** Each with the device's secret and the node's share, by which it is checked. */
export function loraReceiptVectors(): Vector[] {
  const by = { deviceSecret: hexOf(deviceShare.secret), nodeShare: hexOf(nodeShare.share) };
  const bytesFor = (fields: Fields, share = deviceShare, node = nodeShare): Uint8Array => {
    const signed = signedPart(fields);
    return join(signed, macOf(signed, share, node));
  };
  const ok = (name: string, fields: Fields, stored: Json, bytes = bytesFor(fields), holds = true): Vector => {
    const { bitmapHex, digest: named, ...rest } = fields;
    const content = { ...rest, bitmap: Number.parseInt(bitmapHex, 16), digest: hexOf(named) };
    return { name, hex: hexOf(bytes), ...by, expect: "ok", meaning: { ...content, stored, holds } };
  };
  const refused = (name: string, expect: RefusalReason, bytes: Uint8Array): Vector => ({
    ...{ name, hex: hexOf(bytes), ...by, expect },
  });
  const bad = (name: string, fields: Fields, expect: RefusalReason = "bad-field"): Vector =>
    refused(name, expect, bytesFor(fields));
  const plain = bytesFor(through);
  const all = [[1, 4_711]];
  return [
    ok("all up to 4,711", through, all),
    ok("nothing yet", nothing, []),
    ok("nothing yet but the first sixteenth", { ...nothing, bitmapHex: "00010000" }, [[16, 16]]),
    ok("all up to 4,711 and the next but one", { ...through, bitmapHex: "40000000" }, [...all, [4_713, 4_713]]),
    ok("a run and the last that the bitmap reaches", { ...through, bitmapHex: "1c000001" }, [
      ...all,
      [4_715, 4_717],
      [4_743, 4_743],
    ]),
    ok("behind a gap: one", behindGap, [[70_000, 70_000]]),
    ok("behind a gap: a run, and another one before it", { ...behindGap, bitmapHex: "c8000001" }, [
      [69_968, 69_968],
      [69_995, 69_995],
      [69_998, 70_000],
    ]),
    ok("behind a gap: down to the first", { ...behindGap, sequence: 33, bitmapHex: "ffffffff" }, [[1, 33]]),
    ok("evidence: one", { ...behindGap, type: 3 }, [[70_000, 70_000]]),
    ok("evidence: a run", { ...behindGap, type: 3, bitmapHex: "e0000000" }, [[69_997, 70_000]]),
    ok("the highest sequence", { ...through, sequence: 0xffff_ffff }, [[1, 0xffff_ffff]]),
    ok("the highest that a bitmap may name", { ...through, sequence: 0xffff_fffd, bitmapHex: "40000000" }, [
      [1, 0xffff_fffd],
      [0xffff_ffff, 0xffff_ffff],
    ]),
    ok("of another node", through, all, bytesFor(through, deviceShare, shareOfLabel("another node's share")), false),
    ok("for another device", through, all, bytesFor(through, shareOfLabel("another device's share")), false),
    ok("a MAC with one bit changed", through, all, flipped(plain, 40), false),
    ok("another sequence under the same MAC", { ...through, sequence: 4_710 }, [[1, 4_710]], flipped(plain, 8), false),
    refused("one byte short", "truncated", plain.slice(0, 40)),
    refused("nothing", "truncated", new Uint8Array(0)),
    refused("one byte more", "trailing-bytes", join(plain, Uint8Array.of(0))),
    bad("type 0", { ...through, type: 0 }, "unsupported-version"),
    bad("type 4", { ...through, type: 4 }, "unsupported-version"),
    bad("a digest of no record", { ...nothing, digest }),
    bad("behind a gap: sequence 0", { ...behindGap, sequence: 0, digest: new Uint8Array(8) }),
    bad("behind a gap: sequence 0 in the bitmap", { ...behindGap, sequence: 32, bitmapHex: "ffffffff" }),
    bad("evidence: sequence 0", { ...behindGap, type: 3, sequence: 0, digest: new Uint8Array(8) }),
    bad("a bitmap beyond the highest sequence", { ...through, sequence: 0xffff_fffd, bitmapHex: "20000000" }),
  ];
}
