/**
 * Plays many devices in one process, as lean as can be, so that what is measured is the node: sealed beforehand, over a few raw
 * connections of MQTT 3.1.1. Argument: a {@link FleetPlan} as JSON; says `ready` on stdout, begins at a line on stdin, and ends with one
 * line of {@link FleetReport}.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { decodeReceipt } from "../protocol/receipt.ts";
import { SeededRandom } from "../test/protocol/seeded-random.ts";
import { connectPacket, PacketReader, publishedIn, publishPacket, subscribePacket } from "./mqtt-packet.ts";
import { SupplyDevice, singleReading } from "./record-supply.ts";

export interface FleetPlan {
  readonly port: number;
  readonly seed: number;
  readonly devices: number;
  /** Records that each device has at the beginning, and sends as fast as its window allows. */
  readonly backlog: number;
  /** How many devices have that backlog, the first ones. */
  readonly backlogDevices: number;
  /** Records of a device on their way without a receipt. */
  readonly window: number;
  /** The others send so many, one an interval, each at a moment of its own. */
  readonly live: number;
  readonly intervalMs: number;
}

export interface FleetReport {
  readonly records: number;
  readonly acknowledged: number;
  readonly sentAgain: number;
  /** From the first record to the last receipt. */
  readonly tookMs: number;
  /** The same, of the devices with a backlog; 0 where there is none. */
  readonly backlogMs: number;
  /** From sending to receipt of those that were sent one an interval. */
  readonly liveP50Ms: number;
  readonly liveP99Ms: number;
  readonly liveMaxMs: number;
}

const connectionsMax = 50;
const resendAfterMs = 5_000;
const endAfterMs = 240_000;

/** The devices of a fleet, in order: whoever knows the seed can enrol them. */
export function fleetDevices(seed: number, count: number): SupplyDevice[] {
  const random = new SeededRandom(seed);
  return Array.from({ length: count }, () => new SupplyDevice(random));
}

class Sender {
  readonly name: string;
  /** Sealed records, ready for the wire; number n has sequence n + 1. */
  readonly #packets: Buffer[];
  readonly #socket: Socket;
  readonly #window: number;
  /** Up to here it may send; what lies above is not read from its meter yet. */
  #readable: number;
  readonly #backlog: number;
  #sent = 0;
  #through = 0;
  #movedMs = 0;
  sentAgain = 0;
  /** When live records were sent, by sequence. */
  readonly #liveSentMs = new Map<number, number>();
  readonly latenciesMs: number[] = [];

  constructor(name: string, packets: Buffer[], socket: Socket, backlog: number, window: number) {
    this.name = name;
    this.#packets = packets;
    this.#socket = socket;
    this.#backlog = backlog;
    this.#readable = backlog;
    this.#window = window;
  }

  get records(): number {
    return this.#packets.length;
  }

  get hasBacklog(): boolean {
    return this.#backlog > 0;
  }

  get through(): number {
    return this.#through;
  }

  /** One reading more. */
  read(): void {
    if (this.#readable >= this.#packets.length) return;
    this.#liveSentMs.set(++this.#readable, performance.now());
    this.send();
  }

  send(): void {
    const end = Math.min(this.#readable, this.#through + this.#window);
    while (this.#sent < end) this.#socket.write(this.#packets[this.#sent++] as Buffer);
  }

  receive(through: number): void {
    if (through <= this.#through) return;
    const nowMs = performance.now();
    this.#movedMs = nowMs;
    this.#through = through;
    for (const [sequence, sentMs] of this.#liveSentMs) {
      if (sequence > through) break;
      this.latenciesMs.push(nowMs - sentMs);
      this.#liveSentMs.delete(sequence);
    }
    this.send();
  }

  /** What has had no receipt for long goes again. */
  resend(): void {
    if (this.#sent <= this.#through || performance.now() - this.#movedMs < resendAfterMs) return;
    this.#movedMs = performance.now();
    this.sentAgain += this.#sent - this.#through;
    this.#sent = this.#through;
    this.send();
  }
}

async function openConnection(
  port: number,
  id: string,
  names: readonly string[],
  onReceipt: (name: string, bytes: Buffer) => void,
) {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  socket.setNoDelay(true);
  const reader = new PacketReader();
  const answered = Promise.withResolvers<void>();
  const batches = Array.from({ length: Math.ceil(names.length / 100) }, (_, i) => names.slice(i * 100, i * 100 + 100));
  let answers = 0;
  socket.on("data", (chunk: Buffer) => {
    for (const packet of reader.push(chunk)) {
      const published = publishedIn(packet);
      if (published) onReceipt(published.topic.split("/")[2] as string, published.payload);
      else if ((packet[0] as number) >> 4 === 9 && ++answers === batches.length) answered.resolve();
    }
  });
  socket.on("error", answered.reject);
  socket.write(connectPacket(id));
  for (const [i, batch] of batches.entries())
    socket.write(
      subscribePacket(
        i + 1,
        batch.map((name) => topicOf(name, "receipt")),
      ),
    );
  await answered.promise;
  return socket;
}

async function play(plan: FleetPlan): Promise<FleetReport> {
  const devices = fleetDevices(plan.seed, plan.devices);
  const index = new Map(devices.map((device, i) => [device, i]));
  const senders = new Map<string, Sender>();
  const onReceipt = (name: string, bytes: Buffer) => senders.get(name)?.receive(decodeReceipt(bytes).content.through);
  const connections = Math.min(connectionsMax, plan.devices);
  for (let c = 0; c < connections; c++) {
    const own = devices.filter((_, i) => i % connections === c);
    const socket = await openConnection(
      plan.port,
      `fleet-${c}`,
      own.map(({ name }) => name),
      onReceipt,
    );
    for (const device of own) {
      const backlog = (index.get(device) as number) < plan.backlogDevices ? plan.backlog : 0;
      const packets = Array.from({ length: backlog > 0 ? backlog : plan.live }, (_, i) =>
        publishPacket(topicOf(device.name, "record"), device.seal(singleReading), (i % 65_535) + 1),
      );
      senders.set(device.name, new Sender(device.name, packets, socket, backlog, plan.window));
    }
  }
  process.stdout.write("ready\n");
  await once(process.stdin, "data");
  const all = [...senders.values()];
  const random = new SeededRandom(plan.seed ^ 1);
  const fromMs = performance.now();
  const resend = setInterval(() => {
    for (const sender of all) sender.resend();
  }, 1_000);
  for (const sender of all) sender.send();
  const moments = all
    .flatMap((sender) => {
      const phaseMs = random.integer(0, plan.intervalMs);
      return Array.from({ length: sender.hasBacklog ? 0 : plan.live }, (_, i) => ({
        atMs: phaseMs + i * plan.intervalMs,
        sender,
      }));
    })
    .sort((a, b) => a.atMs - b.atMs);
  let next = 0;
  const records = all.reduce((sum, sender) => sum + sender.records, 0);
  let acknowledged = 0;
  let backlogMs = 0;
  const behind = all.filter((sender) => sender.hasBacklog);
  do {
    await new Promise((resolve) => setTimeout(resolve, 5));
    const nowMs = performance.now() - fromMs;
    for (let moment = moments[next]; moment && moment.atMs <= nowMs; moment = moments[++next]) moment.sender.read();
    acknowledged = all.reduce((sum, sender) => sum + sender.through, 0);
    if (backlogMs === 0 && behind.every((sender) => sender.through === sender.records)) backlogMs = Math.round(nowMs);
  } while (acknowledged < records && performance.now() - fromMs < endAfterMs);
  const tookMs = performance.now() - fromMs;
  clearInterval(resend);
  const latencies = all.flatMap((sender) => sender.latenciesMs).sort((a, b) => a - b);
  const at = (share: number) =>
    Math.round(latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? 0);
  return {
    ...{
      records,
      acknowledged,
      tookMs: Math.round(tookMs),
      backlogMs,
      sentAgain: all.reduce((sum, one) => sum + one.sentAgain, 0),
    },
    ...{ liveP50Ms: at(0.5), liveP99Ms: at(0.99), liveMaxMs: at(1) },
  };
}

if (import.meta.main) {
  const report = await play(JSON.parse(process.argv[2] as string));
  process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
}
