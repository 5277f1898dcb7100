/** The meters we know, by the name that the configuration uses. */
import type { MeterProfile } from "./profile.ts";
import { eastronSdm630 } from "./profile-eastron-sdm630.ts";

export const meterProfiles: readonly MeterProfile[] = [eastronSdm630];

/** The profile of that id; undefined when there is none. */
export function findMeterProfile(id: string): MeterProfile | undefined {
  return meterProfiles.find((profile) => profile.id === id);
}
