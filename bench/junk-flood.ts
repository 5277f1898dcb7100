/**
 * Floods a broker with junk, so many messages a second: random bytes, records with broken signatures and replays on the topics of
 * a few enrolled devices, and records of devices that nobody knows, each with a name of its own. Arguments: port, seed, devices of the fleet
 * (the last ones are those that were taken over), messages a second. Runs until it is ended; says how many it has sent on stdout.
 */
import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { SeededRandom } from "../test/protocol/seeded-random.ts";
import { fleetDevices } from "./device-fleet.ts";
import { connectPacket, publishPacket } from "./mqtt-packet.ts";
import { SupplyDevice, singleReading } from "./record-supply.ts";

const [port = 0, seed = 0, devices = 0, perSecond = 0] = process.argv.slice(2).map(Number);
const tickMs = 10;
const takenOver = 10;

const random = new SeededRandom(seed ^ 2);
const bad = fleetDevices(seed, devices).slice(-takenOver);
const strangers = Array.from({ length: 500 }, () => new SupplyDevice(random));

function junk(i: number): Buffer {
  const device = bad[i % bad.length] as SupplyDevice;
  const topic = topicOf(device.name, "record");
  switch (i % 4) {
    case 0:
      return publishPacket(topic, random.bytes(250), 0, 0);
    case 1:
    case 2: {
      const record = device.seal(singleReading);
      record[record.length - 1] = (record[record.length - 1] as number) ^ 1;
      return publishPacket(topic, record, 0, 0);
    }
    default: {
      const stranger = strangers[i % strangers.length] as SupplyDevice;
      return publishPacket(topicOf(stranger.name, "record"), stranger.seal(singleReading), 0, 0);
    }
  }
}

const packets = Array.from({ length: 4_000 }, (_, i) => junk(i));
const socket = connect(port, "127.0.0.1");
await once(socket, "connect");
socket.resume();
socket.on("error", () => process.exit(0)); // the broker has ended
socket.write(connectPacket("flood"));
process.stdout.write("ready\n");
let sent = 0;
const fromMs = performance.now();
for (;;) {
  const due = Math.min(((performance.now() - fromMs) / 1_000) * perSecond - sent, perSecond / 10);
  const chunk: Buffer[] = [];
  for (let i = 0; i < due; i++) chunk.push(packets[sent++ % packets.length] as Buffer);
  if (!socket.write(Buffer.concat(chunk))) await once(socket, "drain");
  await pause(tickMs);
  if (sent % 7 === 0) process.stdout.write(`${sent} in ${Math.round(performance.now() - fromMs)}\n`);
}
