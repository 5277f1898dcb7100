/** What a wallet says of itself: the answer to `hello` of wallet-message.ts. */
import type { CborMap, CborValue } from "./deterministic-cbor.ts";
import { asArray, asBytes, asInteger, asText, uint32Max } from "./field.ts";
import { clockStateLetters } from "./reading-status.ts";
import { metersMax, slotSecondsMax } from "./record.ts";
import { Refusal } from "./refusal.ts";

export const walletProtocolVersion = 1;
/** Plans 1 to 3. */
export const plansListedMax = 3;

/** An epoch before the running one, some of whose records no receipt has released. */
export interface EarlierEpoch {
  readonly epoch: number;
  /** All of it up to here are released. */
  readonly through: number;
  /** The last sequence of it. */
  readonly last: number;
}
const earlierEpochsMax = 16;

/** How the device's key lies on the disk. */
export const keyProtections = ["passphrase", "none"] as const;

/**
 * How records leave the wallet, as its policy says: as they are, encrypted to a full node, or not at all, for want of a pinned
 * node to encrypt them to.
 */
export const recordForms = ["plain", "encrypted", "withheld"] as const;
export type RecordForm = (typeof recordForms)[number];

export interface WalletHello {
  readonly softwareId: string;
  /** The key that signs now. */
  readonly publicKey: Uint8Array;
  /** The key of the device's name: the one it was enrolled with; another than `publicKey` once that was rotated. */
  readonly nameKey: Uint8Array;
  readonly epoch: number;
  readonly nextSequence: number;
  /** All sequences up to here are released by a verified receipt. */
  readonly through: number;
  readonly policyDigest: Uint8Array;
  readonly clockState: number;
  readonly generation: number;
  /** Whether the process runs under Node's permission model, without a JIT, and as which user. */
  readonly permission: boolean;
  readonly jitless: boolean;
  readonly uid: number;
  /** With the end of the newest row: of plan 0, or of the first plan that is listed where no row of plan 0 was ever sealed. */
  readonly meters: readonly { readonly index: number; readonly slotS: number; readonly lastTimeS: number }[];
  readonly sealEveryS: number;
  readonly pinnedNodes: number;
  readonly segments: number;
  readonly segmentsInUse: number;
  readonly pendingRows: number;
  /** Oldest sequence of the running epoch that can still be read back. */
  readonly firstSequence: number;
  /** Oldest first. */
  readonly earlierEpochs: readonly EarlierEpoch[];
  readonly keyProtection: (typeof keyProtections)[number];
  readonly retired: boolean;
  /** Holes that the check of the ring has found since the start. */
  readonly holes: number;
  readonly recordForm: RecordForm;
  /** Uplink plans beside the full one, as the policy lists them. */
  readonly plans: readonly PlanTerms[];
}

/** How the rows of an uplink plan other than the full one are sealed. */
export interface PlanTerms {
  readonly plan: number;
  readonly slotS: number;
  /** Seconds that one record covers at most. */
  readonly sealEveryS: number;
}

export function helloFields(hello: WalletHello): CborMap {
  return new Map<number, CborValue>([
    [1, walletProtocolVersion],
    [2, hello.softwareId],
    [3, hello.publicKey],
    [4, hello.epoch],
    [5, hello.nextSequence],
    [6, hello.through],
    [7, hello.policyDigest],
    [8, hello.clockState],
    [9, hello.generation],
    [10, hello.permission],
    [11, hello.jitless],
    [12, hello.uid],
    [13, hello.meters.map((meter) => [meter.index, meter.slotS, meter.lastTimeS])],
    [14, hello.sealEveryS],
    [15, hello.pinnedNodes],
    [16, hello.segments],
    [17, hello.segmentsInUse],
    [18, hello.pendingRows],
    [19, hello.firstSequence],
    [20, hello.nameKey],
    [21, hello.earlierEpochs.map(({ epoch, through, last }) => [epoch, through, last])],
    [22, keyProtections.indexOf(hello.keyProtection)],
    [23, hello.retired],
    [24, hello.holes],
    [25, recordForms.indexOf(hello.recordForm)],
    [26, hello.plans.map(({ plan, slotS, sealEveryS }) => [plan, slotS, sealEveryS])],
  ]);
}

export function readHello(fields: CborMap): WalletHello {
  const integer = (key: number, max = uint32Max): number => asInteger(fields.get(key), `hello ${key}`, 0, max);
  const version = integer(1);
  if (version !== walletProtocolVersion) throw new Refusal("unsupported-version", `wallet protocol ${version}`);
  return {
    softwareId: asText(fields.get(2), "software id", 64),
    publicKey: asBytes(fields.get(3), "public key", 32),
    epoch: integer(4),
    nextSequence: integer(5, uint32Max + 1),
    through: integer(6),
    policyDigest: asBytes(fields.get(7), "policy digest", 32),
    clockState: integer(8, clockStateLetters.length - 1),
    generation: integer(9),
    permission: fields.get(10) === true,
    jitless: fields.get(11) === true,
    uid: integer(12),
    meters: asArray(fields.get(13), "meters", metersMax).map((item) => {
      const [index, slotS, lastTimeS] = asArray(item, "meter", 3);
      return {
        index: asInteger(index, "meter", 0, metersMax - 1),
        slotS: asInteger(slotS, "slot", 0, slotSecondsMax),
        lastTimeS: asInteger(lastTimeS, "last time", 0, uint32Max),
      };
    }),
    sealEveryS: integer(14),
    pinnedNodes: integer(15),
    segments: integer(16),
    segmentsInUse: integer(17),
    pendingRows: integer(18),
    firstSequence: integer(19, uint32Max + 1),
    nameKey: asBytes(fields.get(20), "name's key", 32),
    earlierEpochs: asArray(fields.get(21), "earlier epochs", earlierEpochsMax).map((item) => {
      const [epoch, through, last] = asArray(item, "earlier epoch", 3);
      return {
        epoch: asInteger(epoch, "epoch", 0, uint32Max),
        through: asInteger(through, "through", 0, uint32Max),
        last: asInteger(last, "last", 0, uint32Max),
      };
    }),
    keyProtection: keyProtections[integer(22, keyProtections.length - 1)] ?? "none",
    retired: fields.get(23) === true,
    holes: integer(24),
    recordForm: recordForms[integer(25, recordForms.length - 1)] ?? "plain",
    // Absent in hellos of version 0.2.0 and before.
    plans: asArray(fields.get(26) ?? [], "plans", plansListedMax).map(readPlanTerms),
  };
}

/** [plan, slot, seal_every]. Throws {@link Refusal}. */
export function readPlanTerms(item: CborValue): PlanTerms {
  const [plan, slotS, sealEveryS] = asArray(item, "plan", 3);
  return {
    plan: asInteger(plan, "plan", 1, plansListedMax),
    slotS: asInteger(slotS, "plan's slot", 1, slotSecondsMax),
    sealEveryS: asInteger(sealEveryS, "plan's seal_every", 0, slotSecondsMax),
  };
}
