/** The language of each family. */
import { AtSlave } from "./at-slave.ts";
import type { Dialect } from "./dialogue.ts";
import { LoraE5 } from "./lora-e5.ts";
import type { ModemFamily } from "./modem.ts";
import { Rn2483 } from "./rn2483.ts";
import { Rui3 } from "./rui3.ts";

/** @param where the port, for messages */
export function createDialect(family: ModemFamily, where: string): Dialect {
  switch (family) {
    case "rui3":
      return new Rui3(where);
    case "lora-e5":
      return new LoraE5(where);
    case "rn2483":
      return new Rn2483(where);
    case "at-slave":
      return new AtSlave(where);
  }
}
