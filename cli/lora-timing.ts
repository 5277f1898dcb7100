/** The time of LoRaWAN modems outside of simulations. */
import { pause } from "../agent/pause.ts";
import type { LoraTiming } from "../drivers/lora/modem.ts";
import { systemClock } from "../platform/clock.ts";

const never = new AbortController().signal;

export const systemLoraTiming: LoraTiming = {
  clock: systemClock,
  pause: (ms, signal) => pause(ms, signal ?? never),
};
