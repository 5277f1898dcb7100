/** Whether the wallet's policy serves a configuration. Both come from hub.yaml, the policy by `ecp config apply` only. */
import type { WalletHello } from "../protocol/wallet-hello.ts";
import { type HubConfiguration, loraPlan } from "./configuration.ts";

/** The wallet's policy is not what this configuration needs: what would be read could not be sealed. */
export class PolicyMismatch extends Error {
  constructor(message: string) {
    super(message);
    this.name = "PolicyMismatch";
  }
}

/** Throws {@link PolicyMismatch}. */
export function checkPolicy({ meters, lora }: HubConfiguration, hello: WalletHello): void {
  for (const { index, name, intervalS } of meters) {
    const known = hello.meters.find((meter) => meter.index === index);
    if (!known) throw new PolicyMismatch(`the wallet's policy does not name meter ${index} (${name})`);
    if (known.slotS !== intervalS)
      throw new PolicyMismatch(
        `the wallet's policy has ${known.slotS} s for meter ${index} (${name}), the configuration ${intervalS} s`,
      );
  }
  if (lora === undefined) return;
  const terms = hello.plans.find(({ plan }) => plan === loraPlan);
  if (!terms) throw new PolicyMismatch("the wallet's policy has no rows for LoRaWAN (uplink: lora:)");
  if (terms.slotS !== lora.slotS)
    throw new PolicyMismatch(
      `the wallet's policy has ${terms.slotS} s for LoRaWAN's rows, the configuration ${lora.slotS} s`,
    );
}
