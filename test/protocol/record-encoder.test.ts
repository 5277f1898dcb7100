// What is signed is not read again: so whatever the encoder takes, a decoder must give back as it was.
import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeCose, toBeSigned } from "../../protocol/cose-sign1.ts";
import { encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { kidOf } from "../../protocol/public-key.ts";
import { hasValues } from "../../protocol/reading-status.ts";
import {
  decodeRecord,
  type RecordContent,
  type RecordEvent,
  type Row,
  sealRecord,
  signRecord,
  valueMax,
} from "../../protocol/record.ts";
import { Refusal } from "../../protocol/refusal.ts";
import { noonS } from "../vectors/sample-content.ts";
import { keyOfLabel, sha256 } from "../vectors/signature-suite.ts";
import { randomOfRun } from "./seeded-random.ts";

const random = randomOfRun();
const wallet = keyOfLabel("wallet key");
const kid = kidOf(wallet.publicKey, sha256);
const signature = new Uint8Array(64).fill(5);

/** Mostly right; now and then at a limit, beyond it, or nonsense. */
function integer(min: number, max: number): number {
  if (random.chance(97)) return random.integer(min, max);
  return random.pick([min - 1, min, max, max + 1, -1, 0, 2 ** 32, 2 ** 53 - 1, -(2 ** 53) + 1, 0.5, Number.NaN]);
}

function randomRows(codes: readonly number[], slotS: number): Row[] {
  const count = slotS === 0 && random.chance(90) ? 1 : random.integer(random.chance(97) ? 1 : 0, 12);
  const firstS = random.chance(95) ? noonS : integer(0, 2 ** 32 - 1);
  return Array.from({ length: count }, (_, i) => {
    const status = random.chance(80) ? 0 : integer(0, 11);
    const some = random.chance(98) ? hasValues(status) : !hasValues(status);
    return {
      timeS: random.chance(99) ? firstS + i * slotS : integer(0, 2 ** 32 - 1),
      status,
      values: some ? codes.map(() => integer(-valueMax, valueMax)) : [],
    };
  });
}

function randomEvent(): RecordEvent {
  const parameters = Array.from({ length: random.chance(98) ? random.integer(0, 4) : 16 }, () =>
    random.pick<number | string | Uint8Array>([
      integer(-(2 ** 40), 2 ** 40),
      random.pick(["", "Zähler", "\ud800", "\ufeffx", "a".repeat(300)]),
      random.bytes(random.integer(0, 300)),
    ]),
  );
  return [integer(0, 65_535), ...parameters];
}

function randomContent(): RecordContent {
  const link = {
    epoch: integer(0, 2 ** 32 - 1),
    sequence: integer(1, 2 ** 32 - 1),
    previous: random.bytes(random.chance(98) ? 16 : random.integer(0, 32)),
    clockState: integer(0, 3),
    generation: integer(0, 2 ** 32 - 1),
  };
  if (random.chance(30)) {
    const count = random.chance(95) ? random.integer(1, 5) : random.pick([0, 64, 65]);
    const events = Array.from({ length: count }, randomEvent);
    return { kind: "event", ...link, timeS: integer(0, 2 ** 32 - 1), events };
  }
  const codeCount = random.chance(98) ? random.integer(1, 6) : random.pick([0, 64, 65]);
  const codes = Array.from({ length: codeCount }, (_, i) => (i + 1) * 7 + integer(0, 6));
  const slotS = random.pick([0, 1, 60, 900, 86_400, 86_401]);
  const serial = random.pick(["", "1234567", "ä".repeat(32), "ä".repeat(33), "\ud800"]);
  return {
    ...{ kind: "reading", ...link, meter: integer(0, 255), plan: integer(0, 255), slotS, codes },
    rows: randomRows(codes, slotS),
    ...(random.chance(10) && { meterSerial: serial }),
  };
}

/** Bytes as text: the decoder leaves a property of its own on the arrays that it has read. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return `h'${Buffer.from(value).toString("hex")}'`;
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]));
}

test("whatever is sealed is read back as it was, and its parts are those that a decoder takes apart", (t) => {
  let sealed = 0;
  let refused = 0;
  for (let i = 0; i < 20_000; i++) {
    const content = randomContent();
    let made: ReturnType<typeof sealRecord>;
    try {
      made = sealRecord(content, () => signature, kid, sha256);
    } catch (error) {
      assert.ok(error instanceof Refusal || error instanceof TypeError, `${error} (seed ${random.seed})`);
      refused++;
      continue;
    }
    const decoded = decodeRecord(made.bytes, sha256);
    assert.deepEqual(plain(decoded), plain(made.decoded), `seed ${random.seed}, record ${i}`);
    sealed++;
  }
  t.diagnostic(`${sealed} sealed, ${refused} refused (seed ${random.seed})`);
  assert.ok(sealed > 5_000 && refused > 2_000);
});

test("the limits of length: the longest record passes, one byte more does not", () => {
  const content = (bytes: number): RecordContent => ({
    ...{ kind: "event", epoch: 1, sequence: 1, previous: new Uint8Array(16), clockState: 0, generation: 0, timeS: 1 },
    events: [[8, new Uint8Array(bytes)]],
  });
  let longest = 16_384;
  const fits = (bytes: number): boolean => {
    try {
      return sealRecord(content(bytes), () => signature, kid, sha256).bytes.length <= 16_384;
    } catch (error) {
      assert.ok(error instanceof Refusal && error.reason === "too-large");
      return false;
    }
  };
  while (!fits(longest)) longest--;
  const { bytes } = sealRecord(content(longest), () => signature, kid, sha256);
  assert.equal(bytes.length, 16_384);
  assert.equal(decodeRecord(bytes, sha256).content.kind, "event");
});

test("signed and sealed are the same bytes; a message put together from its parts is what the encoder makes of it", () => {
  for (let i = 0; i < 300; i++) {
    const [protectedHeader, payload] = [
      random.bytes(random.integer(0, 30)),
      random.bytes(random.pick([0, 23, 24, 255, 256, 16_000])),
    ];
    const array = [protectedHeader, new Map([[4, kid]]), payload, signature];
    assert.deepEqual(encodeCose({ protectedHeader, payload, signature, kid }).subarray(1), encodeCbor(array));
    const bare = [protectedHeader, new Map(), payload, signature];
    assert.deepEqual(encodeCose({ protectedHeader, payload, signature }), encodeCbor(bare));
    const structure = ["Signature1", protectedHeader, new Uint8Array(0), payload];
    assert.deepEqual(toBeSigned(protectedHeader, payload), encodeCbor(structure));
  }
  const content: RecordContent = {
    ...{ kind: "event", epoch: 1, sequence: 1, previous: new Uint8Array(16), clockState: 0, generation: 0, timeS: 1 },
    events: [[2]],
  };
  assert.deepEqual(signRecord(content, wallet.sign, kid), sealRecord(content, wallet.sign, kid, sha256).bytes);
});
