/**
 * What a record is on LoRaWAN: a SCHC packet (RFC 8724 §4), which is the RuleID of how the envelope is elided in one byte, and the
 * residue. The packet travels whole in one frame on {@link recordPort}, or in fragments (schc.ts) on one of {@link fragmentPorts}.
 */
import { contentTypes, encodeCose, protectedHeaderOf, signatureBytes } from "./cose-sign1.ts";
import { equalBytes } from "./deterministic-cbor.ts";
import { Refusal } from "./refusal.ts";

/** FPorts of fragments; each is a fragmentation RuleID of its own with the same parameters (RFC 9011 §5.2), so up to four packets are in flight. */
export const fragmentPorts = [20, 24, 25, 26] as const;
/** FPort of a packet that fits one frame. */
export const recordPort = 100;
/** FPort of the full node's receipt, downwards. */
export const receiptPort = 110;
/** What 4 windows of 63 tiles of 10 bytes hold (RFC 9011 §5.6.2). */
export const packetBytesMax = 2520;

/** RuleID: the residue is the bare COSE_Sign1 as it is. */
const ruleOpaque = 100;
/** RuleID: the residue is payload || signature of a record; the rest of the COSE_Sign1 is always the same and put back by the full node. */
const ruleRecord = 101;

/**
 * The packet of a record in its bare form (no tag, no kid). May be longer than {@link packetBytesMax}: then it cannot go by LoRaWAN.
 */
export function packetOf(bareRecord: Uint8Array): Uint8Array {
  const residue = recordResidue(bareRecord);
  const packet = new Uint8Array(1 + (residue ?? bareRecord).length);
  packet[0] = residue ? ruleRecord : ruleOpaque;
  packet.set(residue ?? bareRecord, 1);
  return packet;
}

/** The bare record of a packet, byte for byte. Says nothing about its content or signature. Throws {@link Refusal}. */
export function recordOfPacket(packet: Uint8Array): Uint8Array {
  if (packet.length > packetBytesMax)
    throw new Refusal("too-large", `a packet of ${packet.length} bytes, at most ${packetBytesMax}`);
  const residue = packet.subarray(1);
  switch (packet[0]) {
    case ruleOpaque:
      if (residue.length === 0) throw new Refusal("bad-packet", "nothing follows the RuleID");
      return new Uint8Array(residue);
    case ruleRecord:
      if (residue.length <= signatureBytes)
        throw new Refusal("bad-packet", `${residue.length} bytes do not hold a payload and a signature`);
      return recordOfResidue(residue);
    default:
      throw new Refusal("bad-packet", packet.length === 0 ? "no bytes" : `RuleID ${packet[0]}, known are 100 and 101`);
  }
}

function recordOfResidue(residue: Uint8Array): Uint8Array {
  const payload = residue.subarray(0, -signatureBytes);
  const signature = residue.subarray(-signatureBytes);
  return new Uint8Array(encodeCose({ protectedHeader: protectedHeaderOf(contentTypes.record), payload, signature }));
}

/** Undefined unless the envelope is exactly the usual one, which is tried by putting it back. */
function recordResidue(bareRecord: Uint8Array): Uint8Array | undefined {
  const emptyPayloadBytes = recordOfResidue(new Uint8Array(signatureBytes)).length;
  for (const headGrowth of [0, 1, 2]) {
    // The head of the payload's byte string takes 1, 2 or 3 bytes (RFC 8949 §3).
    const payloadBytes = bareRecord.length - emptyPayloadBytes - headGrowth;
    if (payloadBytes < 1) return undefined;
    const signature = bareRecord.subarray(-signatureBytes);
    const payloadEnd = bareRecord.length - signatureBytes - 2; // the signature's head is 58 40
    const residue = new Uint8Array(payloadBytes + signatureBytes);
    residue.set(bareRecord.subarray(payloadEnd - payloadBytes, payloadEnd));
    residue.set(signature, payloadBytes);
    if (equalBytes(recordOfResidue(residue), bareRecord)) return residue;
  }
  return undefined;
}
