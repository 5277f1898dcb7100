/** MQTT topics: `ecp/1/<device>/record|receipt|status|command`; device = multibase part of its enrolment did:key. */
import { publicKeyOfDid } from "./public-key.ts";
import { Refusal } from "./refusal.ts";

export const topicKinds = ["record", "receipt", "status", "command"] as const;
export type TopicKind = (typeof topicKinds)[number];

export function topicOf(device: string, kind: TopicKind): string {
  return `ecp/1/${device}/${kind}`;
}

/** The filter that takes one kind of message from every device. */
export function topicFilter(kind: TopicKind): string {
  return `ecp/1/+/${kind}`;
}

/** Device and kind that a topic names; undefined where it is none of ours. */
export function parseTopic(topic: string): { device: string; kind: TopicKind } | undefined {
  const [root, version, device, kind, ...rest] = topic.split("/");
  if (root !== "ecp" || version !== "1" || device === undefined || rest.length > 0) return undefined;
  const known = topicKinds.find((item) => item === kind);
  if (known === undefined || !device.startsWith("z")) return undefined; // the multibase part alone: one name a device
  try {
    publicKeyOfDid(device);
  } catch (error) {
    if (error instanceof Refusal) return undefined;
    throw error;
  }
  return { device, kind: known };
}
