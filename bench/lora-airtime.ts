/** What a house sends where no frame is lost: whole, or in fragments as the agent's sender of fragments makes them; and its airtime. */
import { SchcSender } from "../agent/schc-sender.ts";
import { airtimeMs } from "../drivers/lora/airtime.ts";
import { payloadBytesMax, type RegionName } from "../drivers/lora/region.ts";
import { fragmentPorts, packetOf, recordPort } from "../protocol/lorawan.ts";

export const region: RegionName = "EU868";

export interface Frame {
  readonly port: number;
  readonly bytes: Uint8Array;
}

/** The frames of a bare record at a data rate. */
export function framesOf(record: Uint8Array, dataRate: number): Frame[] {
  const packet = packetOf(record);
  const bytesMax = payloadBytesMax(region, dataRate);
  if (bytesMax === undefined) throw new RangeError(`${region} has no data rate ${dataRate}`);
  if (packet.length <= bytesMax) return [{ port: recordPort, bytes: packet }];
  const port = fragmentPorts[0];
  const sender = SchcSender.begin(port, packet);
  const frames: Frame[] = [];
  for (;;) {
    const frame = sender.next(bytesMax, 0);
    if (frame === undefined || frame === "no-room") return frames; // it waits for the answer to the All-1
    frames.push({ port, bytes: frame.bytes });
    sender.sent(frame, 0);
  }
}

/** Of one record, or of several one after the other. */
export function losslessMs(records: readonly Uint8Array[], dataRate: number): number {
  const frames = records.flatMap((record) => framesOf(record, dataRate));
  return frames.reduce((sum, { bytes }) => sum + airtimeMs(region, dataRate, bytes.length), 0);
}
