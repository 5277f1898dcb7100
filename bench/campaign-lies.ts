/**
 * An agent that has been taken over sends a million requests. Nothing may be sealed against the policy, the wallet may not fail, and each
 * refusal has a reason of the closed list. The judge sees every signature as it is made. Control: a wallet of a wider policy, judged by
 * this one.
 */
import { mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import {
  decodeAnswer,
  decodeWalletRequest,
  readReadAnswer,
  readReleaseAnswer,
  WalletRefusal,
  walletRefusals,
} from "../protocol/wallet-message.ts";
import { meterOf, startS, WalletFixture } from "../test/wallet/wallet-fixture.ts";
import type { WalletPolicy } from "../wallet/policy.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { LyingAgent } from "./lying-agent.ts";
import { SealedJudge } from "./sealed-judge.ts";
import { quickKey } from "./wallet-peer.ts";

const meters = [
  meterOf({ index: 0, rowsPerMinute: 120, powerMaxW: 30_000, resolutionWh: 10 }),
  meterOf({ index: 1, rowsPerMinute: 4, slotS: 60, powerMaxW: 11_000, resolutionWh: 1 }),
  meterOf({ index: 2, rowsPerMinute: 60, slotS: 0, powerMaxW: 3_700, resolutionWh: 1_000 }),
  meterOf({ index: 3, rowsPerMinute: 2, slotS: 900, powerMaxW: 0 }),
];

const plans = [
  { plan: 1, slotS: 900, sealEveryS: 3_600 },
  { plan: 3, slotS: 60, sealEveryS: 0 },
];

await runCampaign("lies", async (campaign) => {
  const requests = campaign.count(1_000_000, 3_000);
  const { judge, refused, reasons, unknownReasons, failures, answered, releasedByLies } = lie(
    campaign,
    { meters, plans, encryptTo: "first" },
    requests,
  );
  const otherPlans = [
    { plan: 2, slotS: 60, sealEveryS: 60 },
    { plan: 3, slotS: 900, sealEveryS: 0 },
  ];
  const wider = meters.map((meter) => ({ ...meter, powerMaxW: 0, rowsPerMinute: 6_000 }));
  const control = lie(
    campaign,
    { meters: wider, plans: [...plans.slice(0, 1), ...otherPlans] },
    campaign.count(50_000, 2_000),
  );
  for (const [rule, count] of judge.offences) campaign.say(`sealed against the policy: ${rule}, ${count} times`);
  const isTried =
    answered > requests / 50 && refused > requests / 10 && judge.counts.marked > 0 && judge.counts.leftBare > 0;
  const figures = {
    ...{ requests, answered, refused, reasonsMet: reasons.size, unknownReasons, failures, releasedByLies },
    ...{ sealedAgainstPolicy: judge.total, refusalsUntold: refused - judge.counts.refusalsTold, ...judge.counts },
  };
  // The refusals of the last minute are told when it is over, or at a stop; a kill -9 loses those of one minute.
  const isSafe = judge.total + unknownReasons + failures + releasedByLies === 0;
  return {
    figures,
    control: { sealedAgainstNarrowerPolicy: control.judge.total, rules: [...control.judge.offences.keys()].join("; ") },
    holds: isSafe && isTried && control.judge.total > 0,
  };
});

/** The genuine node's receipt for all of it, signed or under a MAC, which the agent carries. */
function releaseAll(wallet: WalletFixture, agent: LyingAgent, isShort: boolean): void {
  const { epoch, lastDigest: digest, nextSequence } = wallet.journal;
  const through = nextSequence - 1;
  const { node, key, kid: device } = wallet;
  const receipt = isShort
    ? node.loraReceipt({ epoch, sequence: through, digest }, key.share)
    : node.receipt({ device, epoch, through, digest });
  agent.carries(receipt);
  if (readReleaseAnswer(wallet.ask({ type: "release", receipt })).through !== through) throw new Error("not released");
}

function lie(campaign: Campaign, policy: Partial<WalletPolicy>, requests: number) {
  const { random } = campaign;
  const folder = mkdtempSync(path.join("/dev/shm", "ecp-lies-"));
  const endings: (() => unknown)[] = [];
  const judgeOf: { judge?: SealedJudge } = {};
  const key = quickKey();
  const sign = (message: Uint8Array): Uint8Array => {
    judgeOf.judge?.signed(message);
    return key.sign(message);
  };
  const options = {
    parent: folder,
    segments: 6,
    segmentBlocks: 16,
    key: { ...key, sign },
    policy: { sealEveryS: 0, ...policy },
  };
  const wallet = new WalletFixture({ after: (ending) => endings.push(ending as () => unknown) }, options);
  const judge = new SealedJudge(meters, plans, wallet.clock);
  judgeOf.judge = judge;
  judge.began(wallet.journal.nextSequence - 1, () => wallet.journal.nextSequence);
  wallet.clock.set(startS);
  const agent = new LyingAgent(random, meters, policy.plans ?? plans);
  const reasons = new Map<string, number>();
  let answered = 0;
  let failures = 0;
  let releasedByLies = 0;
  try {
    for (let i = 0; i < requests; i++) {
      wallet.clock.pass(random.integer(0, 4_000) / 1_000);
      const released = wallet.journal.releasedThrough;
      try {
        const message = agent.message(wallet);
        const { fields } = decodeAnswer(wallet.wallet.answer(message));
        judge.answered();
        const { request } = decodeWalletRequest(message);
        if (!(fields instanceof WalletRefusal) && !(request instanceof WalletRefusal) && "bare" in request)
          for (const [, record] of readReadAnswer(fields).records) judge.leftBare(record);
        if (fields instanceof WalletRefusal) reasons.set(fields.reason, (reasons.get(fields.reason) ?? 0) + 1);
        else answered++;
      } catch (error) {
        failures++;
        campaign.say(`request ${i}: ${(error as Error).stack}`);
      }
      if (wallet.journal.releasedThrough !== released) releasedByLies++;
      if (i % 10 === 0) wallet.wallet.tick();
      judge.answered();
      // The genuine node acknowledges now and then; sometimes the wallet starts anew; sometimes somebody sets the clock.
      if (i % 20 === 19) releaseAll(wallet, agent, random.chance(50));
      if (i % 50_000 === 49_999) {
        wallet.wallet.stop();
        judge.answered();
        judge.starts++;
        wallet.restart();
        judge.answered();
      }
      if (i % 30_000 === 29_999)
        wallet.clock.set(Math.floor(wallet.clock.wallMs() / 1_000) + random.integer(-5_000, 5_000));
      campaign.progress(i, requests, `${judge.counts.records} records`);
    }
    wallet.wallet.stop();
    judge.answered();
  } finally {
    for (const ending of endings.reverse()) ending();
    rmSync(folder, { recursive: true, force: true });
  }
  const refused = [...reasons.values()].reduce((sum, count) => sum + count, 0);
  const unknownReasons = [...reasons.keys()].filter((reason) => !Object.hasOwn(walletRefusals, reason)).length;
  return { judge, refused, reasons, unknownReasons, failures, answered, releasedByLies };
}
