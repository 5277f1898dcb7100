/** Records as SCHC packets. The residues are cut by hand: recordOfPacket has no part in them. */
import { contentTypes } from "../../protocol/cose-sign1.ts";
import { encodeRecordPayload } from "../../protocol/record.ts";
import { type RefusalReason } from "../../protocol/refusal.ts";
import { energyRows, readingOf, sequence } from "./sample-content.ts";
import { bytesOf, hexOf } from "./signature-suite.ts";
import { join, previous, protectedHeaderOf, type Vector, wallet, wrap } from "./vector.ts";

const bare = { key: wallet, tagged: false, unprotectedHex: "a0" } as const;

export function packetVectors(): Vector[] {
  const payload = encodeRecordPayload(
    readingOf({ previous, sequence, codes: [2, 4], slotS: 900, plan: 1, rows: energyRows(4, 900, 2_000) }),
  );
  const ofRecord = (name: string, content: Uint8Array): Vector => {
    const record = wrap(contentTypes.record, content, bare);
    const packet = join(bytesOf("65"), content, record.subarray(-64));
    return { name, hex: hexOf(packet), expect: "ok", meaning: { record: hexOf(record) } };
  };
  const opaque = (name: string, record: Uint8Array): Vector => ({
    name,
    hex: `64${hexOf(record)}`,
    expect: "ok",
    meaning: { record: hexOf(record) },
  });
  const bad = (name: string, hex: string, expect: RefusalReason = "bad-packet"): Vector => ({ name, hex, expect });
  return [
    ofRecord("four 15-minute readings of two energies, plan 1: the envelope is elided", payload),
    ofRecord("a payload of 23 bytes: its head in the record has 1 byte", new Uint8Array(23)),
    ofRecord("a payload of 24 bytes: 2 bytes", new Uint8Array(24)),
    ofRecord("a payload of 256 bytes: 3 bytes", new Uint8Array(256)),
    opaque("a record with tag and kid goes as it is", wrap(contentTypes.record, payload, { key: wallet })),
    opaque("a receipt goes as it is", wrap(contentTypes.receipt, payload, bare)),
    opaque(
      "a record signed with algorithm -19 goes as it is",
      wrap(contentTypes.record, payload, { ...bare, protectedHeader: protectedHeaderOf(contentTypes.record, "32") }),
    ),
    bad("nothing", ""),
    bad("RuleID 100 alone", "64"),
    bad("RuleID 101 alone", "65"),
    bad("RuleID 101 and a signature without a payload", `65${"00".repeat(64)}`),
    bad("RuleID 22: no compression rule matched, an IPv6 packet", "16600000"),
    bad("2,521 bytes", `64${"00".repeat(2_520)}`, "too-large"),
  ];
}
