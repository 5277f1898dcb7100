import assert from "node:assert/strict";
import { test } from "node:test";
import { LoraBatch } from "../../agent/lora-batch.ts";
import { closeBatch, keepRow, meterRows, type RowPlan, sealDue } from "../../agent/row-sealing.ts";
import { type WalletClient, WalletUnavailable } from "../../agent/wallet-client.ts";
import { statuses } from "../../protocol/reading-status.ts";
import type { SealAnswer, SealRequest } from "../../protocol/wallet-message.ts";

const codes = [1, 2, 4, 20];
const plan: RowPlan = {
  plan: 1,
  thinning: { slotS: 900, codes: [1] },
  batch: () => new LoraBatch(() => 3_600),
};

/** Keeps rows pending until a request closes them. */
class BatchWallet {
  readonly requests: Omit<SealRequest, "type">[] = [];
  readonly batches: number[][] = [];
  #pending: number[] = [];
  away = false;

  async seal(request: Omit<SealRequest, "type">): Promise<SealAnswer> {
    if (this.away) throw new WalletUnavailable("away");
    this.requests.push(request);
    for (const { timeS } of request.rows) if (!this.#pending.includes(timeS)) this.#pending.push(timeS);
    if (request.closes) this.batches.push(this.#pending.splice(0));
    return { sequences: request.rows.map(() => (request.closes ? this.batches.length : 0)) };
  }
}

function scene() {
  const wallet = new BatchWallet();
  const sealed: [sequence: number, rows: number][] = [];
  const events: string[] = [];
  const options = {
    wallet: wallet as unknown as WalletClient,
    sealEveryS: 60,
    emit: ({ event }: { event: string }) => events.push(event),
    onSealed: (sequence: number, rows: number) => sealed.push([sequence, rows]),
  };
  const rows = meterRows(3, 60, plan);
  const read = async (timeS: number, status: number = statuses.good): Promise<void> => {
    const values = status === statuses.good ? [timeS, timeS * 2, timeS * 4, timeS * 20] : [];
    keepRow(rows, { codes, row: { timeS, status, values } });
    await sealDue(rows, options);
  };
  return { wallet, sealed, events, options, rows, read };
}

test("of each minute's readings those at the slot's end go this way: the registers, and what is chosen beside them", async () => {
  const { wallet, sealed, rows, read } = scene();
  for (let timeS = 60; timeS <= 7_200; timeS += 60) await read(timeS);
  assert.deepEqual(wallet.batches, [
    [900, 1_800, 2_700, 3_600],
    [4_500, 5_400, 6_300, 7_200],
  ]);
  assert.deepEqual(wallet.requests[1], {
    ...{ meter: 3, plan: 1, slotS: 900, codes: [1, 2, 4] },
    rows: [{ timeS: 1_800, status: statuses.good, values: [1_800, 3_600, 7_200] }],
  });
  assert.deepEqual(
    wallet.requests.map(({ closes }) => closes === true),
    [false, false, false, true, false, false, false, true],
  );
  assert.deepEqual(sealed, [
    [1, 4],
    [2, 4],
  ]);
  assert.equal(rows.buffer.length, 0);
});

test("a failed reading is a row with its status; a meter without any quantity of this way gives none", async () => {
  const { wallet, read } = scene();
  await read(900);
  await read(1_800, statuses.timeout);
  assert.deepEqual(wallet.requests[1]?.rows, [{ timeS: 1_800, status: statuses.timeout, values: [] }]);
  const rows = meterRows(4, 60, plan);
  assert.equal(keepRow(rows, { codes: [20], row: { timeS: 900, status: statuses.good, values: [1] } }), 0);
  assert.equal(rows.buffer.length, 0);
});

test("rows of a wallet that is away wait, and then close the batch that has ended meanwhile", async () => {
  const { wallet, read } = scene();
  await read(900);
  wallet.away = true;
  for (const timeS of [1_800, 2_700, 3_600, 4_500]) await read(timeS);
  wallet.away = false;
  await read(5_400);
  assert.deepEqual(wallet.batches, [[900, 1_800, 2_700, 3_600, 4_500, 5_400]]);
});

test("a batch that is open can be closed before its time, once", async () => {
  const { wallet, options, rows, read, sealed } = scene();
  await closeBatch(rows, options);
  assert.deepEqual(wallet.requests, []);
  await read(900);
  await read(1_800);
  await closeBatch(rows, options);
  await closeBatch(rows, options);
  assert.deepEqual(wallet.batches, [[900, 1_800]]);
  assert.deepEqual(sealed, [[1, 2]]);
  await read(2_700);
  wallet.away = true;
  await closeBatch(rows, options);
  wallet.away = false;
  await read(3_600);
  assert.deepEqual(wallet.batches.at(-1), [2_700, 3_600]);
});
