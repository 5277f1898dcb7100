/**
 * Random and mutated frames through everything that takes bytes off a wire: the parsers, the exchanges of RTU and TCP, modbus-serial's decoding
 * behind our port, identification, register values. Nothing may throw, but for errors of the closed list; each exchange has one outcome; no
 * parser holds more than a frame, or loses count of a byte; no frame takes 50 ms; memory stays. Control: a parser whose rule of lengths
 * believes whatever the bytes say.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import modbusSerial from "modbus-serial";
import { DriverError, driverErrorCodes } from "../drivers/failure.ts";
import { type LineProtocol, RtuProtocol } from "../drivers/modbus/exchange.ts";
import { LinePort } from "../drivers/modbus/line-port.ts";
import { encodeMbapFrame, MbapParser, MbapProtocol } from "../drivers/modbus/mbap.ts";
import { registersOf } from "../drivers/modbus/profile.ts";
import { meterProfiles } from "../drivers/modbus/profile-catalogue.ts";
import { libraryError } from "../drivers/modbus/register-read.ts";
import { textOfWords, valueOfWords } from "../drivers/modbus/register-value.ts";
import {
  answerLength,
  crc16,
  encodeRtuFrame,
  RtuParser,
  requestLength,
  rtuFrameBytesMax,
} from "../drivers/modbus/rtu-frame.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { runCampaign } from "./campaign.ts";

const slowMs = 50;
/** The heap is measured so often; it breathes by less than this between two measurements. */
const measurements = 10;
const heapGrowthMaxBytes = 4 * 2 ** 20;
const poolSize = 4096;

type Client = InstanceType<typeof modbusSerial.default>;
/** modbus-serial's own functions with a callback, which is called within `deliver`. */
type Ask = (unit: number, first: number, second: number, next: (error: unknown, answer: unknown) => void) => void;
type LibraryCalls = Record<"writeFC3" | "writeFC4" | "writeFC17" | "writeFC43", Ask>;

/** Whole frames of each kind, from which the mutants are made. */
function wholeFrames(random: SeededRandom): Uint8Array[] {
  const functionCodes = [1, 2, 3, 4, 3, 4, 17, 43, 0x83, 0x84, 0xab, 6, 16];
  return Array.from({ length: poolSize }, () => {
    const functionCode = random.pick(functionCodes);
    const unit = random.integer(1, 3);
    const pdu = wholePdu(functionCode, random);
    if (random.chance(20)) return encodeMbapFrame({ transaction: random.integer(0, 3), unit, pdu });
    return encodeRtuFrame(unit, pdu);
  });
}

function wholePdu(functionCode: number, random: SeededRandom): Uint8Array {
  if (functionCode > 0x80) return Uint8Array.of(functionCode, random.integer(1, 11));
  if (random.chance(15)) return Uint8Array.from([functionCode, 0, random.integer(0, 255), 0, random.integer(1, 125)]);
  if (functionCode === 43) {
    const texts = Array.from({ length: random.integer(0, 4) }, (_, id) => [id, 5, ...random.bytes(5)]);
    return Uint8Array.from([43, 14, 1, 1, random.pick([0, 0xff]), random.integer(0, 3), texts.length, ...texts.flat()]);
  }
  const data = random.bytes(2 * random.integer(1, random.chance(80) ? 8 : 125));
  return Uint8Array.from([functionCode, data.length, ...data]);
}

/** The next frame: noise, a whole one, or a mutant, half of which have a CRC that is right again. */
function nextFrame(random: SeededRandom, pool: readonly Uint8Array[]): Uint8Array {
  const draw = random.uint32();
  if (draw % 8 === 0) return random.bytes((draw >>> 8) % 40);
  const frame = pool[(draw >>> 4) % pool.length]!.slice();
  if (draw % 8 === 1) return frame;
  for (let turns = 1 + ((draw >>> 28) & 3); turns > 0; turns--) {
    const place = random.uint32();
    // Heads decide what a parser does: every other change falls there.
    const at = (place >>> 9) % (place & 1 ? Math.min(frame.length, 9) : frame.length);
    frame[at]! ^= place & 2 ? 1 << ((place >>> 2) & 7) : (place >>> 24) & 0xff;
  }
  if (draw & 8) {
    const crc = crc16(frame, 0, frame.length - 2);
    frame[frame.length - 2] = crc & 0xff;
    frame[frame.length - 1] = crc >>> 8;
    return frame;
  }
  return draw % 8 === 2 ? frame.subarray(0, (draw >>> 16) % frame.length) : frame;
}

class Consumers {
  readonly figures = { exchanges: 0, answers: 0, decoded: 0, refusals: 0, breaches: 0, unlisted: 0 };
  readonly #answers = new RtuParser(answerLength);
  readonly #requests = new RtuParser(requestLength);
  #mbap = new MbapParser();
  readonly #rtu = new RtuProtocol(30);
  #tcp = new MbapProtocol();
  readonly #port = new LinePort("frames", () => {});
  readonly #library: Client & LibraryCalls;
  readonly #registers = meterProfiles.flatMap((profile) => profile.registers);
  #nowMs = 0;
  #turn = 0;

  constructor() {
    this.#library = new modbusSerial.default(this.#port) as Client & LibraryCalls;
    this.#library.open();
  }

  take(frame: Uint8Array): void {
    this.#turn++;
    this.#nowMs += 20_000; // nothing is owed any more
    this.#parse(this.#answers, frame);
    this.#parse(this.#requests, frame);
    this.#mbap.push(frame);
    if (this.#mbap.broken) this.#mbap = new MbapParser();
    if (this.#turn % 2 === 0) this.#exchange(this.#rtu, frame);
    else {
      if (this.#tcp.broken) this.#tcp = new MbapProtocol();
      this.#exchange(this.#tcp, frame);
    }
    this.#decodeRegister(frame);
  }

  /** No byte is lost count of, none is held for ever. */
  #parse(parser: RtuParser, frame: Uint8Array): void {
    const before = parser.rejectedBytes + parser.pendingBytes;
    let found = 0;
    for (const whole of parser.push(frame)) found += whole.length;
    if (this.#turn % 16 === 0) for (const whole of parser.rescan()) found += whole.length;
    if (parser.pendingBytes > rtuFrameBytesMax) this.figures.breaches++;
    if (parser.rejectedBytes + parser.pendingBytes + found !== before + frame.length) this.figures.breaches++;
  }

  /** A request that fits the frame's head, so that some frames are answers. */
  #exchange(protocol: LineProtocol, frame: Uint8Array): void {
    this.figures.exchanges++;
    const isTcp = protocol instanceof MbapProtocol;
    const head = isTcp ? frame.subarray(6) : frame;
    const functionCode = [3, 4, 17, 43].find((known) => known === (head[1] ?? 0) % 0x80) ?? 4;
    const unit = head[0] || 1;
    const count = Math.min(125, Math.max(1, (head[2] ?? 2) >> 1));
    const pdu = functionCode > 4 ? Uint8Array.of(functionCode) : Uint8Array.of(functionCode, 0, 0, 0, count);
    const sentAtMs = this.#nowMs;
    const wire = protocol.begin(encodeRtuFrame(unit, pdu), {
      sentAtMs,
      deadlineMs: sentAtMs + 100,
      slowestAnswerMs: 100,
    });
    if (isTcp && frame.length > 1) frame.set(wire.subarray(0, 2)); // the transaction id, or all would be late
    protocol.receive(frame, sentAtMs + 10);
    const early = protocol.takeOutcome();
    protocol.tick(sentAtMs + 100);
    const late = protocol.takeOutcome();
    if ((early === undefined) === (late === undefined)) this.figures.breaches++;
    protocol.takeLate();
    const outcome = early ?? late;
    if (outcome?.kind !== "reply") return;
    this.figures.answers++;
    this.#decode(unit, functionCode, count, outcome.frame);
  }

  /** As line.ts does it: modbus-serial asks, our port delivers. */
  #decode(unit: number, functionCode: number, count: number, frame: Uint8Array): void {
    let settled = 0;
    const next = (error: unknown): void => {
      settled++;
      this.figures[error ? "refusals" : "decoded"]++;
      if (!error) return;
      const read = { unit, functionCode: 4, address: 0, count, timeoutMs: 100 } as const;
      const { code } = libraryError("frames", read, error);
      if (!driverErrorCodes.includes(code)) this.figures.unlisted++;
    };
    const ask = { 3: "writeFC3", 4: "writeFC4", 17: "writeFC17", 43: "writeFC43" } as const;
    const call = ask[functionCode as 3 | 4 | 17 | 43];
    this.#library[call](unit, functionCode === 43 ? 1 : 0, functionCode === 43 ? 0 : count, next);
    this.#port.deliver(frame);
    if (settled !== 1) this.figures.breaches++;
  }

  #decodeRegister(frame: Uint8Array): void {
    const register = this.#registers[this.#turn % this.#registers.length]!;
    const words = new Uint16Array(registersOf(register.type));
    for (let i = 0; i < words.length; i++) words[i] = ((frame[2 * i] ?? 0xff) << 8) | (frame[2 * i + 1] ?? 0xff);
    const value = valueOfWords(register, words);
    const isClosed =
      typeof value === "number" ? Number.isSafeInteger(value) && !Object.is(value, -0) : value.status > 0;
    if (!isClosed) this.figures.breaches++;
    if (this.#turn % 8 === 0) textOfWords({ type: "ascii", count: words.length }, words);
  }
}

/** What the parser's rule would be without its limits: a count is believed. */
function credulousLength(bytes: Uint8Array, start: number, end: number): number | "incomplete" | "none" {
  if (end - start < 3) return "incomplete";
  const functionCode = bytes[start + 1]!;
  if (functionCode === 43) return end - start < 8 ? "incomplete" : 10 + 257 * bytes[start + 7]!;
  return functionCode <= 4 || functionCode === 17 ? 5 + 2 * bytes[start + 2]! : "none";
}

await runCampaign("frames", async (campaign) => {
  setFlagsFromString("--expose-gc");
  const collectGarbage = runInNewContext("gc") as () => void;
  const { random } = campaign;
  const frames = campaign.count(20_000_000, 400_000);
  const pool = wholeFrames(random);
  const consumers = new Consumers();
  const heapsBytes: number[] = [];
  let [exceptions, slow, slowestMs] = [0, 0, 0];
  const first: string[] = [];
  const takeTimed = (taker: Consumers, frame: Uint8Array): number => {
    const fromMs = performance.now();
    try {
      taker.take(frame);
    } catch (error) {
      exceptions++;
      if (!(error instanceof DriverError) && first.length < 3)
        first.push(`${Buffer.from(frame).toString("hex")}: ${error}`);
    }
    return performance.now() - fromMs;
  };
  const startMs = performance.now();
  for (let i = 0; i < frames; i++) {
    if (i % (frames / measurements) === 0) {
      collectGarbage();
      heapsBytes.push(process.memoryUsage().heapUsed);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const frame = nextFrame(random, pool);
    const tookMs = takeTimed(consumers, frame);
    if (tookMs > slowMs) {
      // Another process may have had the processor: a frame that is slow is slow again.
      const again = [1, 2, 3].map(() => takeTimed(new Consumers(), frame));
      if (Math.min(tookMs, ...again) > slowMs) slow++;
    } else slowestMs = Math.max(slowestMs, tookMs);
    campaign.progress(i, frames);
  }
  collectGarbage();
  heapsBytes.push(process.memoryUsage().heapUsed);
  for (const problem of first) campaign.say(problem);
  // The first measurement is before anything was compiled.
  const growthBytes = heapsBytes.at(-1)! - heapsBytes[1]!;
  const seconds = Math.round((performance.now() - startMs) / 1000);

  const control = { frames: Math.min(frames, 100_000), held: 0, exceptions: 0 };
  let credulous = new RtuParser(credulousLength);
  for (let i = 0; i < control.frames; i++) {
    try {
      credulous.push(nextFrame(random, pool));
    } catch {
      control.exceptions++;
    }
    if (credulous.pendingBytes <= rtuFrameBytesMax) continue;
    control.held++;
    credulous = new RtuParser(credulousLength);
  }
  const { figures } = consumers;
  const isSafe = exceptions + slow + figures.breaches + figures.unlisted === 0 && growthBytes < heapGrowthMaxBytes;
  const isTried = figures.answers > 0 && figures.decoded > 0 && figures.refusals > 0;
  return {
    figures: { frames, ...figures, exceptions, slow, slowestMs: Math.round(slowestMs * 10) / 10, growthBytes, seconds },
    control,
    holds: isSafe && isTried && control.held + control.exceptions > 0,
  };
});
