/** The meters we know, by the name that the configuration uses. Their tables stand in profiles/, one file a meter. */
import type { MeterProfile } from "./profile.ts";
import { meterProfileOf, type ProfileFile } from "./profile-file.ts";
import abbB23 from "./profiles/abb-b23.json" with { type: "json" };
import cgEm24E1 from "./profiles/cg-em24-e1.json" with { type: "json" };
import cgEm24Rs485 from "./profiles/cg-em24-rs485.json" with { type: "json" };
import cgEm340 from "./profiles/cg-em340.json" with { type: "json" };
import cgEm340Easy from "./profiles/cg-em340-easy.json" with { type: "json" };
import eastronSdm72 from "./profiles/eastron-sdm72.json" with { type: "json" };
import eastronSdm72v2 from "./profiles/eastron-sdm72v2.json" with { type: "json" };
import eastronSdm120 from "./profiles/eastron-sdm120.json" with { type: "json" };
import eastronSdm230 from "./profiles/eastron-sdm230.json" with { type: "json" };
import eastronSdm630 from "./profiles/eastron-sdm630.json" with { type: "json" };
import finder7m38 from "./profiles/finder-7m38.json" with { type: "json" };
import janitzaUmg19000 from "./profiles/janitza-umg-19000.json" with { type: "json" };
import janitzaUmg604 from "./profiles/janitza-umg604.json" with { type: "json" };
import ornoWe514 from "./profiles/orno-we514.json" with { type: "json" };
import ornoWe516 from "./profiles/orno-we516.json" with { type: "json" };
import schneiderIem3155 from "./profiles/schneider-iem3155.json" with { type: "json" };
import siemensPac2200 from "./profiles/siemens-pac2200.json" with { type: "json" };
import { sunspecProfiles } from "./sunspec-profiles.ts";

/** As they are listed. Of two whose recognition both fits, the earlier one is likelier. */
const files = [
  eastronSdm120,
  eastronSdm230,
  eastronSdm630,
  eastronSdm72v2,
  eastronSdm72,
  cgEm340Easy,
  cgEm340,
  cgEm24Rs485,
  cgEm24E1,
  schneiderIem3155,
  abbB23,
  janitzaUmg604,
  janitzaUmg19000,
  ornoWe516,
  ornoWe514,
  siemensPac2200,
  finder7m38,
] as unknown as readonly ProfileFile[]; // JSON has strings where the form has a choice; a test checks each by the schema

export const meterProfiles: readonly MeterProfile[] = [...files.map(meterProfileOf), ...sunspecProfiles];

/** The profile of that id; undefined when there is none. */
export function findMeterProfile(id: string): MeterProfile | undefined {
  return meterProfiles.find((profile) => profile.id === id);
}

/** The file of a built-in profile; undefined when there is none: no such profile, or one that has no table. */
export function findProfileFile(id: string): ProfileFile | undefined {
  return files.find((file) => file.id === id);
}
