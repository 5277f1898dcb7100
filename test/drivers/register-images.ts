// Hand-made register images of every profile, and what a reading of them has to be (test/fixtures/register-images).
import { readFileSync } from "node:fs";
import path from "node:path";
import type { TestContext } from "node:test";
import type { MeterProfile } from "../../drivers/modbus/profile.ts";
import { imageDevice } from "../../simulator/meter-device.ts";
import { RegisterImage } from "../../simulator/register-image.ts";
import { SimulatedSlave } from "../../simulator/simulated-slave.ts";
import { serveModbusTcp, type TcpSlave } from "../../simulator/tcp-slave.ts";

export interface ImageCase {
  readonly name: string;
  /** Words by place: `4:0x0034` → `449A 5000`. */
  readonly registers: Readonly<Record<string, string>>;
  readonly values?: Readonly<Record<string, number>>;
  readonly status?: number;
  readonly left_out?: readonly string[];
}

export function imageCases(id: string): readonly ImageCase[] {
  const file = path.join(import.meta.dirname, "../fixtures/register-images", `${id}.json`);
  return (JSON.parse(readFileSync(file, "utf8")) as { cases: ImageCase[] }).cases;
}

/** The registers of a case; where the profile has settings, they are as its table needs them. */
export function imageOf(profile: MeterProfile, { registers }: Pick<ImageCase, "registers">): RegisterImage {
  const image = new RegisterImage();
  image.cover(profile.probe.functionCode, profile.probe.address, 20);
  for (const [place, words] of Object.entries(registers)) {
    const [functionCode, address] = place.split(":").map(Number) as [3 | 4, number];
    words.split(" ").forEach((word, i) => {
      image.setWord(functionCode, address + i, Number(`0x${word}`));
    });
  }
  for (const mode of profile.modes) image.setValue(mode, mode.accepted[0] ?? 0);
  return image;
}

/** A Modbus TCP server with a unit for each image, from unit 1 on. */
export async function serveImages(
  t: TestContext,
  profile: MeterProfile,
  images: readonly RegisterImage[],
): Promise<{ server: TcpSlave; slaves: readonly SimulatedSlave[] }> {
  const slaves = images.map((image, i) => new SimulatedSlave(imageDevice(profile, i + 1, image)));
  const server = await serveModbusTcp(slaves, { host: "127.0.0.1", port: 0 });
  t.after(() => server.close());
  return { server, slaves };
}
