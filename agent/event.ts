import type { LoraEvent, LoraState } from "./lora-status.ts";

/** What an agent tells whoever started it, as it happens. `--json` prints these, one a line. Times in Unix milliseconds. */
export type AgentEvent =
  | { readonly event: "wallet"; readonly state: "connected" | "disconnected"; readonly detail?: string }
  | {
      readonly event: "uplink";
      readonly state: "connected" | "disconnected";
      readonly address: string;
      readonly detail?: string;
    }
  | {
      readonly event: "reading";
      readonly meter: number;
      readonly name: string;
      readonly timeS: number;
      /** The clock is not set: the time is seconds since the boot. */
      readonly relative?: true;
      /** OCMF letter. */
      readonly status: string;
      readonly values: Readonly<Record<string, number>>;
      /** When the reading was there, in milliseconds after the end of its slot. */
      readonly offsetMs: number;
      readonly detail?: string;
    }
  /** What the wallet says when the agent meets it: sequences sealed and released so far. */
  | { readonly event: "resumed"; readonly sealed: number; readonly acknowledged: number }
  | {
      readonly event: "sealed";
      readonly sequence: number;
      readonly meter: number;
      readonly rows: number;
      /** Of the uplink plan that they are for; absent: the full one. */
      readonly plan?: number;
    }
  | { readonly event: "published"; readonly sequence: number }
  | {
      readonly event: "acknowledged";
      readonly through: number;
      /** For each record sealed by this process and acknowledged now: milliseconds from sealed to acknowledged. */
      readonly receiptMs: readonly number[];
    }
  | { readonly event: "refused"; readonly by: "wallet"; readonly reason: string; readonly detail: string }
  /** How the LoRaWAN uplink stands now, and what it does. */
  | ({ readonly event: "lora-state" } & LoraState)
  | { readonly event: "lora"; readonly lora: LoraEvent }
  | { readonly event: "stopped-polling" }
  | { readonly event: "lost"; readonly meter: number; readonly rows: number; readonly detail: string };
