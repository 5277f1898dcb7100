/** What the LoRaWAN uplink does, as a line of a log that is kept: what somebody may look for later, not each frame. */
import type { LoraEvent } from "../agent/lora-status.ts";

export interface LoraLogLine {
  /** Undefined: no line. */
  readonly level?: "info" | "warn";
  readonly text: string;
  readonly fields: Readonly<Record<string, string | number>>;
}

export function loraLogLine(event: LoraEvent): LoraLogLine {
  const { event: name, ...fields } = event;
  const line = { text: `lora ${name}`, fields };
  switch (name) {
    case "joined":
      return { ...line, level: "info" };
    case "session-ended":
      return event.event === "session-ended" && /^(acknowledged|stored)$/.test(event.outcome)
        ? line
        : { ...line, level: "warn" };
    case "frame":
    case "record":
      return line;
    default:
      return { ...line, level: "warn" };
  }
}
