/** MAC commands of LoRaWAN 1.0.x (specification clause 5), as far as a class A device and a small network server speak them. */

export interface MacCommand {
  readonly id: number;
  readonly body: Uint8Array;
}

export const macCommandIds = {
  linkCheck: 0x02,
  linkAdr: 0x03,
  dutyCycle: 0x04,
  rxParamSetup: 0x05,
  devStatus: 0x06,
  newChannel: 0x07,
  rxTimingSetup: 0x08,
  txParamSetup: 0x09,
  downlinkChannel: 0x0a,
  deviceTime: 0x0d,
} as const;

/** Bytes after the identifier. */
const requestBytes: Readonly<Record<number, number>> = {
  2: 2,
  3: 4,
  4: 1,
  5: 4,
  6: 0,
  7: 5,
  8: 1,
  9: 1,
  10: 4,
  13: 5,
};
const answerBytes: Readonly<Record<number, number>> = {
  2: 0,
  3: 1,
  4: 0,
  5: 1,
  6: 2,
  7: 1,
  8: 0,
  9: 0,
  10: 1,
  13: 0,
};

/** The commands in FOpts, or in the payload of FPort 0. What follows an unknown or cut one cannot be read and is left out. */
export function readMacCommands(bytes: Uint8Array, direction: "up" | "down"): MacCommand[] {
  const lengths = direction === "down" ? requestBytes : answerBytes;
  const commands: MacCommand[] = [];
  let at = 0;
  while (at < bytes.length) {
    const id = bytes[at]!;
    const length = lengths[id];
    if (length === undefined || at + 1 + length > bytes.length) break;
    commands.push({ id, body: bytes.slice(at + 1, at + 1 + length) });
    at += 1 + length;
  }
  return commands;
}

export function linkAdrRequest(dataRate: number, transmissions = 1, txPower = 0): Uint8Array {
  // ChMask 0x00ff with ChMaskCntl 0; NbTrans in the low nibble.
  return Uint8Array.of(macCommandIds.linkAdr, (dataRate << 4) | txPower, 0xff, 0x00, transmissions & 0x0f);
}
