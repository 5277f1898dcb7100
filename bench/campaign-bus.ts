/**
 * Random faults on RTU lines (answers late, lost, cut, garbled, duplicated, from the wrong unit, in noise), on ptys through serialport. No
 * value may be another request's, and each exchange must end in exactly one outcome. Controls: the same sequence through modbus-serial's own RTU
 * port, and through our line without the guard against answers that are still owed.
 */
import modbusSerial from "modbus-serial";
import { DriverError } from "../drivers/failure.ts";
import { RtuProtocol } from "../drivers/modbus/exchange.ts";
import { ModbusLine } from "../drivers/modbus/line.ts";
import { createRtuLine } from "../drivers/modbus/rtu-line.ts";
import { openSerialPort } from "../drivers/serial/serial-port.ts";
import { SeededRandom } from "../test/protocol/seeded-random.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { busUnits, FaultyBus, faultKinds, refusedFrom, zeroFrom } from "./faulty-bus.ts";

const baud = 115_200;
const timeoutMs = 60;
const limits = {
  timeoutMs,
  slowestAnswerMs: 150,
  gapMs: 2,
  countStep: 2,
  probe: { functionCode: 4, address: 0 },
} as const;
/** An exchange that takes longer has not ended: rest, probe and time-out together are far below it. */
const unsettledMs = 30_000;

/** Wrong values that are told in full. */
const wrongShownMax = 5;

interface Request {
  readonly unit: number;
  readonly functionCode: 3 | 4;
  readonly address: number;
  readonly count: number;
}

/** Resolves with the words; rejects with whatever went wrong. */
type Read = (request: Request) => Promise<readonly number[]>;

/** Few lengths, so that answers could be taken for one another's. */
function nextRequest(random: SeededRandom): Request {
  const zone = random.integer(1, 100);
  const from = zone <= 4 ? zeroFrom : zone <= 6 ? refusedFrom : 0;
  return {
    unit: random.pick(busUnits),
    functionCode: random.pick([3, 4] as const),
    address: from + 2 * random.integer(0, 300),
    count: random.pick([2, 2, 2, 4, 4, 12]),
  };
}

class Tally {
  reads = 0;
  answered = 0;
  wrongValues = 0;
  /** Answers of a moment ago to a request for the very same registers. */
  repeated = 0;
  /** Refusals of registers that are there. */
  misplacedRefusals = 0;
  unsettled = 0;
  readonly failures: Record<string, number> = {};

  async read(bus: FaultyBus, read: Read, request: Request): Promise<void> {
    this.reads++;
    const { unit, functionCode, address } = request;
    let timer: NodeJS.Timeout | undefined;
    const watch = new Promise<"unsettled">((resolve) => {
      timer = setTimeout(() => resolve("unsettled"), unsettledMs);
    });
    try {
      const words = await Promise.race([read(request), watch]);
      if (words === "unsettled") this.unsettled++;
      else if (bus.isTrue(unit, functionCode, address, words)) this.answered++;
      else if (bus.isRepeat(unit, functionCode, address, words)) this.repeated++;
      else {
        this.wrongValues++;
        if (this.wrongValues <= wrongShownMax)
          process.stderr.write(
            `bus: wrong value: ${JSON.stringify({ ...request, words, received: bus.received(unit) })}\n`,
          );
      }
    } catch (error) {
      const exception = (error as DriverError).exceptionCode ?? (error as { modbusCode?: number }).modbusCode;
      if (exception !== undefined && address < refusedFrom) this.misplacedRefusals++;
      const code = error instanceof DriverError ? error.code : ((error as NodeJS.ErrnoException).errno ?? "other");
      this.failures[code] = (this.failures[code] ?? 0) + 1;
    } finally {
      clearTimeout(timer);
    }
  }
}

interface LineUnderTest {
  readonly read: Read;
  readonly line?: ModbusLine;
  close(): Promise<unknown>;
}

function ours(path: string, isGuarded: boolean): LineUnderTest {
  const openTransport = () => openSerialPort({ path, baud });
  const line = isGuarded
    ? createRtuLine({ description: path, openTransport, baud, bitsPerCharacter: 10 })
    : new ModbusLine({
        description: path,
        openTransport,
        protocol: new Unguarded(30),
        characterMs: 10_000 / baud,
        frameGapMs: 1.75,
        requestCostRegisters: () => 10,
      });
  return {
    line,
    read: async (request) => [...(await line.readRegisters({ ...limits, ...request }))],
    close: () => line.close(),
  };
}

/** As it would be if lengths were not watched. */
class Unguarded extends RtuProtocol {
  override probeCount(): undefined {
    return undefined;
  }
}

async function theirs(path: string): Promise<LineUnderTest> {
  const client = new modbusSerial.default();
  await client.connectRTUBuffered(path, { baudRate: baud });
  client.setTimeout(timeoutMs);
  return {
    read: async ({ unit, functionCode, address, count }) => {
      client.setID(unit);
      const { data } =
        functionCode === 3
          ? await client.readHoldingRegisters(address, count)
          : await client.readInputRegisters(address, count);
      return data;
    },
    close: () => new Promise((resolve) => client.close(resolve)),
  };
}

interface Round {
  readonly tally: Tally;
  readonly faults: Record<string, number>;
  /** Of our lines, summed up. */
  readonly late: number;
  readonly requests: number;
  /** Requests on the wire that have not been counted as exactly one of the outcomes. */
  readonly miscounted: number;
}

/** `count` reads, shared by `lines` lines at once. */
async function run(
  campaign: Campaign,
  count: number,
  lines: number,
  start: (path: string) => Promise<LineUnderTest> | LineUnderTest,
): Promise<Round> {
  const tally = new Tally();
  const faults: Record<string, number> = {};
  let [late, requests, outcomes] = [0, 0, 0];
  const oneLine = async (place: number): Promise<void> => {
    // The same sequences in each round, whatever the speed of the others.
    const seed = (campaign.random.seed ^ Math.imul(place + 1, 0x9e3779b1)) >>> 0;
    const bus = new FaultyBus(new SeededRandom(seed));
    const random = new SeededRandom(seed ^ 0x5bd1e995);
    const under = await start(bus.path);
    let isEnded = false;
    const end = async (): Promise<void> => {
      if (isEnded) return;
      isEnded = true;
      await under.close();
      await bus.close();
    };
    campaign.after(end);
    for (let i = place; i < count; i += lines) {
      await tally.read(bus, under.read, nextRequest(random));
      campaign.progress(tally.reads, count, `${tally.wrongValues} wrong values`);
    }
    await end();
    for (const kind of faultKinds) faults[kind] = (faults[kind] ?? 0) + bus.faults[kind];
    for (const unit of under.line?.counters.values() ?? []) {
      late += unit.late;
      requests += unit.requests;
      outcomes += unit.ok + unit.timeouts + unit.crcErrors + unit.wrongReplies + unit.exceptions;
    }
  };
  await Promise.all(Array.from({ length: lines }, (_, place) => oneLine(place)));
  return { tally, faults, late, requests, miscounted: Math.abs(requests - outcomes) };
}

await runCampaign("bus", async (campaign) => {
  const lines = campaign.count(24, 16);
  const startMs = performance.now();
  const round = await run(campaign, campaign.count(100_000, 3_000), lines, (path) => ours(path, true));
  const seconds = Math.round((performance.now() - startMs) / 1000);
  const plain = await run(campaign, campaign.count(5_000, 800), lines, theirs);
  const unguarded = await run(campaign, campaign.count(5_000, 800), lines, (path) => ours(path, false));
  const { tally } = round;
  const valued = tally.answered + tally.repeated + tally.wrongValues;
  const ended = valued + Object.values(tally.failures).reduce((a, b) => a + b, 0);
  const figures = {
    reads: tally.reads,
    requests: round.requests,
    answered: tally.answered,
    wrongValues: tally.wrongValues,
    repeatedAnswers: tally.repeated,
    misplacedRefusals: tally.misplacedRefusals,
    withoutOneOutcome: tally.unsettled + round.miscounted + Math.abs(tally.reads - ended),
    lateRejected: round.late,
    ...tally.failures,
    ...Object.fromEntries(Object.entries(round.faults).map(([kind, times]) => [`fault ${kind}`, times])),
    seconds,
  };
  const control = {
    modbusSerialReads: plain.tally.reads,
    modbusSerialWrongValues: plain.tally.wrongValues,
    unguardedReads: unguarded.tally.reads,
    unguardedWrongValues: unguarded.tally.wrongValues,
  };
  const isSafe = figures.wrongValues === 0 && figures.withoutOneOutcome === 0;
  const isTried = faultKinds.every((kind) => (round.faults[kind] ?? 0) > 0) && round.late > 0;
  const canFail = control.modbusSerialWrongValues > 0 && control.unguardedWrongValues > 0;
  return { figures, control, holds: isSafe && isTried && canFail && tally.answered > tally.reads / 2 };
});
