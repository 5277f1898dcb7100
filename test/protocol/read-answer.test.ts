import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeReadAnswer } from "../../protocol/read-answer.ts";
import {
  decodeAnswer,
  encodeAnswer,
  readFields,
  readReadAnswer,
  WalletRefusal,
} from "../../protocol/wallet-message.ts";

test("an answer to a read is the same bytes as by the general encoder, whatever the sizes of its numbers", () => {
  for (const id of [0, 23, 24, 255, 256, 65_535, 65_536, 0xffff_ffff])
    for (const count of [0, 1, 23, 24, 256]) {
      const records = Array.from({ length: count }, (_, i): [number, Uint8Array] => [
        [1, 23, 24, 300, 70_000, 0xffff_fff0][i % 6] as number,
        new Uint8Array([0, 1, 23, 24, 255, 256, 16_384][i % 7] as number).fill(i),
      ]);
      const bytes = encodeReadAnswer(id, { records });
      assert.deepEqual(Buffer.from(bytes), Buffer.from(encodeAnswer(id, readFields({ records }))));
      if (count === 0 || bytes.length > 65_000 || records.some(([, record]) => record.length === 0)) continue;
      const { fields } = decodeAnswer(bytes);
      assert.ok(!(fields instanceof WalletRefusal));
      assert.deepEqual(readReadAnswer(fields).records, records);
    }
});
