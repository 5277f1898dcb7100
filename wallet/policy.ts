/**
 * The wallet's own policy (policy.cbor): what it seals and whom it believes. Written by the operator's `ecp config apply`
 * and `ecp pin`, owned by the wallet's user, read at start; the agent supplies none of it. Layout: wallet/README.md.
 */
import { type CborValue, decodeCbor, encodeCbor } from "../protocol/deterministic-cbor.ts";
import { enrolmentBytesMax } from "../protocol/enrolment.ts";
import { asArray, asBytes, asInteger, asMap, asText, uint32Max } from "../protocol/field.ts";
import { metersMax, slotSecondsMax } from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import { type PlanTerms, plansListedMax, readPlanTerms } from "../protocol/wallet-hello.ts";

export const policyVersion = 1;
export const policyBytesMax = 65_536;
export const pinnedNodesMax = 16;
/** So that the enrolment request, which names all meters and rotations, stays below its own limit. */
const meterNamesBytesMax = enrolmentBytesMax - 8_192;
const meterFields = 9;
const meterFieldsBefore = 6;
export const sealEverySecondsDefault = 60;
/** Registers that count whole kWh. */
export const resolutionWhDefault = 1_000;

export interface PolicyMeter {
  readonly index: number;
  readonly name: string;
  readonly profile: string;
  /** Slot length of its rows in seconds. */
  readonly slotS: number;
  /** Most power that the connection can carry in W; 0: not limited. */
  readonly powerMaxW: number;
  /** Most new rows a minute. */
  readonly rowsPerMinute: number;
  /** What its energy registers may be off by because of their resolution, in Wh. */
  readonly resolutionWh: number;
  /** Counts the meters that have hung in this place, and why the last was changed: a declared change explains a fallen register. */
  readonly installation: number;
  readonly installationReason: string;
}

export interface PinnedNode {
  readonly name: string;
  /** Ed25519 key that signs its receipts. */
  readonly publicKey: Uint8Array;
  /** X25519 public share. */
  readonly share: Uint8Array;
}

export interface WalletPolicy {
  readonly meters: readonly PolicyMeter[];
  readonly nodes: readonly PinnedNode[];
  /** Seconds that one record covers at most; 0: each reading by itself. */
  readonly sealEveryS: number;
  /** What happens when the ring is full of unacknowledged records. */
  readonly whenFull: "refuse" | "drop_oldest";
  /** Days that acknowledged records are kept where there is room. */
  readonly retentionDays: number;
  /** To whom records are encrypted on their way: to the first pinned node, to the one of this Ed25519 key, or to nobody. */
  readonly encryptTo: "nobody" | "first" | Uint8Array;
  /** Uplink plans beside the full one, by their numbers: thinner rows, which may leave bare (for LoRaWAN), whatever `encryptTo` says. */
  readonly plans: readonly PlanTerms[];
}

export const emptyPolicy: WalletPolicy = {
  meters: [],
  nodes: [],
  sealEveryS: sealEverySecondsDefault,
  whenFull: "refuse",
  retentionDays: 30,
  encryptTo: "nobody",
  plans: [],
};

const whenFullNames = ["refuse", "drop_oldest"] as const;

export function encodePolicy(policy: WalletPolicy): Uint8Array {
  const bytes = encodeCbor(
    new Map<number, CborValue>([
      [1, policyVersion],
      [
        2,
        policy.meters.map((m) => [
          m.index,
          m.name,
          m.profile,
          m.slotS,
          m.powerMaxW,
          m.rowsPerMinute,
          m.resolutionWh,
          m.installation,
          m.installationReason,
        ]),
      ],
      [3, policy.nodes.map((node) => [node.name, node.publicKey, node.share])],
      [4, policy.sealEveryS],
      [5, whenFullNames.indexOf(policy.whenFull)],
      [6, policy.retentionDays],
      ...encryptionField(policy.encryptTo),
      ...plansField(policy.plans),
    ]),
  );
  decodePolicy(bytes);
  return bytes;
}

function encryptionField(encryptTo: WalletPolicy["encryptTo"]): [number, CborValue][] {
  return encryptTo === "nobody" ? [] : [[7, encryptTo === "first" ? true : encryptTo]];
}

function plansField(plans: WalletPolicy["plans"]): [number, CborValue][] {
  return plans.length === 0 ? [] : [[8, plans.map(({ plan, slotS, sealEveryS }) => [plan, slotS, sealEveryS])]];
}

/** Throws {@link Refusal}; unknown fields too: a policy that is only half understood is not obeyed. */
export function decodePolicy(bytes: Uint8Array): WalletPolicy {
  const map = asMap(decodeCbor(bytes, policyBytesMax), "policy");
  const version = asInteger(map.get(1), "version", 0, uint32Max);
  if (version !== policyVersion) throw new Refusal("unsupported-version", `${version}`);
  for (const key of map.keys())
    if (typeof key !== "number" || key < 1 || key > 8)
      throw new Refusal("bad-field", `policy field ${key} is not known`);
  const meters = asArray(map.get(2), "meters", metersMax).map((item) => {
    const fields = asArray(item, "meter", meterFields);
    // The last three are absent in policies of version 0.2.0 and before.
    if (fields.length !== meterFields && fields.length !== meterFieldsBefore)
      throw new Refusal("bad-field", `a meter of ${fields.length} fields`);
    const [index, name, profile, slotS, powerMaxW, rowsPerMinute, resolution, installation, reason] = fields;
    return {
      index: asInteger(index, "meter index", 0, metersMax - 1),
      name: asText(name, "meter name", 64),
      profile: asText(profile, "meter profile", 64),
      slotS: asInteger(slotS, "meter slot", 0, slotSecondsMax),
      powerMaxW: asInteger(powerMaxW, "meter power", 0, uint32Max),
      rowsPerMinute: asInteger(rowsPerMinute, "meter rate", 1, 6_000),
      resolutionWh: asInteger(resolution ?? resolutionWhDefault, "meter resolution", 0, uint32Max),
      installation: asInteger(installation ?? 0, "meter installation", 0, uint32Max),
      installationReason: asText(reason ?? "", "meter change's reason", 64),
    };
  });
  if (new Set(meters.map((meter) => meter.index)).size !== meters.length)
    throw new Refusal("bad-field", "two meters have the same index");
  const nameBytes = meters.reduce((sum, { name, profile }) => sum + Buffer.byteLength(name + profile), 0);
  if (nameBytes > meterNamesBytesMax)
    throw new Refusal(
      "bad-field",
      `names and profiles of all meters take ${nameBytes} bytes, at most ${meterNamesBytesMax}`,
    );
  return {
    meters,
    nodes: asArray(map.get(3), "nodes", pinnedNodesMax).map((item) => {
      const [name, publicKey, share] = asArray(item, "node", 3);
      return {
        name: asText(name, "node name", 64),
        publicKey: asBytes(publicKey, "node key", 32),
        share: asBytes(share, "node share", 32),
      };
    }),
    sealEveryS: asInteger(map.get(4), "seal_every", 0, slotSecondsMax),
    whenFull: whenFullNames[asInteger(map.get(5), "when_full", 0, 1)] ?? "refuse",
    retentionDays: asInteger(map.get(6), "retention", 0, 36_500),
    encryptTo: readEncryptTo(map.get(7)),
    plans: readPlans(map.get(8)),
  };
}

function readPlans(value: CborValue | undefined): PlanTerms[] {
  const plans = asArray(value ?? [], "plans", plansListedMax).map(readPlanTerms);
  if (plans.some(({ plan }, i) => i > 0 && plan <= (plans[i - 1] as PlanTerms).plan))
    throw new Refusal("bad-field", "plans ascend by their numbers, each once");
  return plans;
}

function readEncryptTo(value: CborValue | undefined): WalletPolicy["encryptTo"] {
  if (value === undefined) return "nobody";
  return value === true ? "first" : asBytes(value, "encrypt_to", 32);
}
