// Writes the vectors: `node test/vectors/generate.ts`. Every input is fixed, so the same files come out each time; a
// test compares. What a vector expects is stated here by hand or taken from what went in, never from the decoder.
import { writeFileSync } from "node:fs";
import path from "node:path";
import { cborVectors } from "./cbor-vectors.ts";
import { coseVectors } from "./cose-vectors.ts";
import { encryptedVectors } from "./encryption-vectors.ts";
import { enrolmentAnswerVectors, enrolmentRequestVectors } from "./enrolment-vectors.ts";
import {
  epochEventVectors,
  keptReceiptVectors,
  rotatedRequestVectors,
  rotationVectors,
} from "./epoch-vectors.ts";
import { didKeyVectors, publicKeyVectors, signatureVectors } from "./key-vectors.ts";
import { loraReceiptVectors } from "./lora-receipt-vectors.ts";
import { packetVectors } from "./lorawan-vectors.ts";
import { receiptVectors } from "./receipt-vectors.ts";
import { recordVectors } from "./record-vectors.ts";
import { answerVectors, fragmentVectors } from "./schc-vectors.ts";
import { statementVectors } from "./statement-vectors.ts";
import { type VectorFile } from "./vector.ts";

const ours = "this project: test/vectors/generate.ts";

export function vectorFiles(): ReadonlyMap<string, VectorFile> {
  const rfc8032 = "RFC 8032 §7.1 (rfc8032-section-7.1.json); the ones that must fail: this project";
  return new Map([
    ["cbor.json", { about: "Deterministic CBOR: decodeCbor", source: ours, vectors: cborVectors() }],
    [
      "cose-sign1.json",
      {
        about: "COSE_Sign1 with the content type of a record: decodeCose and verifyCose",
        source: ours,
        vectors: coseVectors(),
      },
    ],
    ["record.json", { about: "Sealed records: decodeRecord and verifyCose", source: ours, vectors: recordVectors() }],
    ["receipt.json", { about: "Receipts: decodeReceipt and verifyCose", source: ours, vectors: receiptVectors() }],
    [
      "enrolment-request.json",
      { about: "Enrolment requests: openEnrolmentRequest", source: ours, vectors: enrolmentRequestVectors() },
    ],
    [
      "enrolment-answer.json",
      { about: "Enrolment answers: openEnrolmentAnswer", source: ours, vectors: enrolmentAnswerVectors() },
    ],
    [
      "record-epochs.json",
      { about: "Sealed records: events of keys and epochs", source: ours, vectors: epochEventVectors() },
    ],
    [
      "rotation.json",
      { about: "Records with a rotation: decodeRecord, verifyCose, rotationIn", source: ours, vectors: rotationVectors() },
    ],
    [
      "enrolment-rotated.json",
      { about: "Enrolment requests of rotated keys", source: ours, vectors: rotatedRequestVectors() },
    ],
    ["receipt-kept.json", { about: "Receipts that name what they keep", source: ours, vectors: keptReceiptVectors() }],
    ["statement.json", { about: "Period statements: decodeStatement", source: ours, vectors: statementVectors() }],
    [
      "encrypted-record.json",
      {
        about: "Encrypted records, each with the X25519 secret of the full node that opens it: decodeEncrypted and decryptRecord",
        source: ours,
        vectors: encryptedVectors(),
      },
    ],
    [
      "lora-receipt.json",
      {
        about: "Receipts of 41 bytes, each with the X25519 secret of the device and the share of the node: decodeLoraReceipt",
        source: ours,
        vectors: loraReceiptVectors(),
      },
    ],
    [
      "lorawan-packet.json",
      { about: "Records as SCHC packets: recordOfPacket and packetOf", source: ours, vectors: packetVectors() },
    ],
    [
      "schc-fragment.json",
      {
        about: "SCHC fragments: decodeFragment and encodeFragment",
        source: "this project; where a peer is named, its encoder gave the same bytes",
        vectors: fragmentVectors(),
      },
    ],
    [
      "schc-answer.json",
      {
        about: "SCHC ACKs and Receiver-Aborts: decodeAnswer and encodeAnswer",
        source: "this project; where a peer is named, its encoder gave the same bytes",
        vectors: answerVectors(),
      },
    ],
    [
      "did-key.json",
      {
        about: "did:key: publicKeyOfDid",
        source: "did:key specification (W3C CCG), §1 and its test vectors; the broken ones: this project",
        vectors: didKeyVectors(),
      },
    ],
    [
      "public-key.json",
      {
        about: "Ed25519 public keys: vetPublicKey",
        source: "the points of small order are those of libsodium's and Wycheproof's lists; others: this project",
        vectors: publicKeyVectors(),
      },
    ],
    ["signature.json", { about: "Ed25519 signatures", source: rfc8032, vectors: signatureVectors() }],
  ]);
}

export function fileText(file: VectorFile): string {
  return `${JSON.stringify(file, undefined, 1)}\n`;
}

export const vectorsFolder: string = import.meta.dirname;

if (import.meta.main) {
  for (const [name, file] of vectorFiles()) writeFileSync(path.join(vectorsFolder, name), fileText(file));
}
