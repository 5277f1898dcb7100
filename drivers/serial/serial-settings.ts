/** How a serial line is set; what a meter's maker prints as "9600 8N1". */
export interface SerialSettings {
  /** Device path; a symlink such as /dev/serial/by-id/… is best, since it survives re-plugging. */
  readonly path: string;
  /** Bits per second. */
  readonly baud: number;
  readonly dataBits?: 7 | 8;
  readonly parity?: "none" | "even" | "odd";
  readonly stopBits?: 1 | 2;
}

/** `9600 8N1`, as makers print it. */
export function describeFraming(settings: SerialSettings): string {
  const parity = { none: "N", even: "E", odd: "O" }[settings.parity ?? "none"];
  return `${settings.baud} ${settings.dataBits ?? 8}${parity}${settings.stopBits ?? 1}`;
}

/** Bits on the wire for one character: start, data, parity, stop. */
export function bitsPerCharacter(settings: Pick<SerialSettings, "dataBits" | "parity" | "stopBits">): number {
  return 1 + (settings.dataBits ?? 8) + ((settings.parity ?? "none") === "none" ? 0 : 1) + (settings.stopBits ?? 1);
}
