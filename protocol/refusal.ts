/**
 * Why bytes from outside were refused. The list is closed: whoever refuses a message picks one of these reasons, and each
 * has the one sentence that people see. A reason is part of the wire contract (vectors name it in `expect`).
 */
export const refusalSentences = {
  // deterministic CBOR, RFC 8949 §4.2.1
  "too-large": "the message is longer than the limit",
  truncated: "the message ends before its content does",
  "trailing-bytes": "bytes follow the end of the message",
  "indefinite-length": "an indefinite length is not deterministic CBOR",
  "non-minimal-integer": "an integer or length is not in its shortest form",
  float: "floating-point numbers are not allowed, all values are integers",
  tag: "a CBOR tag stands where none is allowed",
  "simple-value": "a CBOR simple value other than false, true and null",
  "bad-utf8": "a text string is not valid UTF-8",
  "map-key-type": "a map key is neither an integer nor a text string",
  "duplicate-key": "a map has the same key twice",
  "unsorted-keys": "a map's keys are not in ascending order of their bytes",
  "too-deep": "the message is nested deeper than the limit",
  "not-reproduced": "encoding the decoded message again gives other bytes",
  // COSE_Sign1, RFC 9052 §4.2
  "not-cose-sign1": "the message is not a COSE_Sign1",
  "bad-protected-header": "the protected header is not {1: algorithm, 3: content type}",
  "unknown-algorithm": "the algorithm is neither EdDSA (-8) nor Ed25519 (-19)",
  "unknown-critical-header": "the message demands a header parameter that is not understood",
  "bad-unprotected-header": "the unprotected header holds something other than a kid of 8 bytes",
  "wrong-content-type": "the message is of another kind than the one expected here",
  "bad-signature-length": "the signature is not 64 bytes long",
  "signature-invalid": "the signature does not hold",
  // COSE_Encrypt0, RFC 9052 §5.2
  "not-cose-encrypt0": "the message is not a COSE_Encrypt0 of a record",
  "cannot-decrypt": "the record does not open: it was encrypted to another full node, or changed on its way",
  "bad-nonce": "the IV is not the one that follows from the encrypted record",
  "bad-padding": "the encrypted record is not padded as demanded",
  // content
  "unsupported-version": "the message is of a version that is not understood",
  "missing-field": "a required field is missing",
  "bad-field": "a field has a type or value that it must not have",
  "bad-rows": "the rows do not fit the codes, the slot or their statuses",
  // LoRaWAN, RFC 8724 and RFC 9011
  "bad-packet": "the SCHC packet has no known RuleID, or too little behind it",
  "bad-fragment": "the bytes are no SCHC fragment or answer of the profile of RFC 9011",
  // keys
  "bad-did": "the name is not a did:key of an Ed25519 key",
  "bad-public-key": "the public key is not a canonical, torsion-free point of large order",
} as const;

export type RefusalReason = keyof typeof refusalSentences;

/** A message from outside was refused. Never thrown for a programmer's error. */
export class Refusal extends Error {
  readonly reason: RefusalReason;
  /** @param detail what was found where, for people; never holds secrets or whole messages */
  constructor(reason: RefusalReason, detail?: string) {
    super(detail === undefined ? refusalSentences[reason] : `${refusalSentences[reason]} (${detail})`);
    this.name = "Refusal";
    this.reason = reason;
  }
}
