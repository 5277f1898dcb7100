/**
 * One Modbus line: a queue of reads, one request in flight, over a transport that is opened, watched and opened again.
 *
 * The library `modbus-serial` sits on our LinePort; what may be an answer is decided by a LineProtocol (exchange.ts for
 * RTU, mbap.ts for TCP), which is pure: here are the clock, the timers and the port.
 */
import type { ByteTransport } from "../byte-transport.ts";
import { DriverError } from "../failure.ts";
import { type AnswerLatency, AnswerTimes } from "./answer-times.ts";
import type { ExchangeOutcome, LineProtocol } from "./exchange.ts";
import { type DeviceIdentity, identify } from "./identification.ts";
import { LinePort } from "./line-port.ts";
import { LineSilence } from "./line-silence.ts";
import {
  assertRead,
  describeRequest,
  exchangeError,
  type IdentityRequest,
  libraryError,
  type ReadingRequest,
  type RegisterRead,
  unprovenError,
} from "./register-read.ts";
import { encodeReadRequest, replyLengthOf } from "./rtu-frame.ts";

/** What happened with one unit since the line was made. */
export interface UnitCounters {
  requests: number;
  ok: number;
  timeouts: number;
  /** Answers with a wrong CRC, garbage. */
  crcErrors: number;
  exceptions: number;
  /** Valid answers that did not belong to the request: other unit, other function, other length. */
  wrongReplies: number;
  /** Answers that came after their time and were rejected. */
  late: number;
}

export interface ModbusLineOptions {
  /** For messages before the first transport is open: `/dev/ttyUSB0 at 9600 8N1`. */
  readonly description: string;
  /** Opens the transport; called at the first read and after each loss. */
  readonly openTransport: () => Promise<ByteTransport>;
  readonly protocol: LineProtocol;
  /** Time of one character on the wire; 0 for TCP. */
  readonly characterMs: number;
  /** Silence between frames: t3.5; 0 for TCP. */
  readonly frameGapMs: number;
  /** Cost of one more request in registers, given the gap before it: what a block may waste before it is split. */
  readonly requestCostRegisters: (gapMs: number) => number;
  /** Time-outs in a row, of whatever units, after which the transport is taken for lost and opened again. Default 3. */
  readonly timeoutsUntilReopen?: number;
  /** Monotonic milliseconds. Default performance.now(). */
  readonly nowMs?: () => number;
}

/** More waiting reads than this are refused: a queue that only grows hides a dead line. */
const waitingReadsMax = 256;

/** Reads in another length by which the line is proven to be clean before a read is given up. */
const probesMax = 3;
/** A timer that fires so much too late was held up. */
const stallMs = 10;

type Library = InstanceType<typeof import("modbus-serial").default>;

export class ModbusLine {
  readonly description: string;
  readonly nowMs: () => number;
  readonly requestCostRegisters: (gapMs: number) => number;
  readonly #options: ModbusLineOptions;
  readonly #protocol: LineProtocol;
  readonly #port: LinePort;
  readonly #silence: LineSilence;
  readonly #counters = new Map<number, UnitCounters>();
  #library: Library | undefined;
  #transport: ByteTransport | undefined;
  #tail: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #closed = false;
  #timeoutsInRow = 0;
  #openings = 0;
  /** The exchange in flight: where its outcome goes, and how long it may take. */
  #inFlight: { settle: (outcome: ExchangeOutcome) => void; fail: (error: Error) => void } | undefined;
  #inFlightTiming = { sentAtMs: 0, timeoutMs: 0 };
  #current: ReadingRequest | undefined;
  readonly #answerTimes = new AnswerTimes();
  #timer: NodeJS.Timeout | undefined;
  #timerAtMs = 0;
  /** The library has the answer to the exchange in flight. */
  #isDelivered = false;
  readonly #closing = new AbortController();

  constructor(options: ModbusLineOptions) {
    this.#options = options;
    this.description = options.description;
    this.nowMs = options.nowMs ?? (() => performance.now());
    this.requestCostRegisters = options.requestCostRegisters;
    this.#protocol = options.protocol;
    this.#port = new LinePort(options.description, (request) => this.#send(request));
    const { description, frameGapMs } = options;
    this.#silence = new LineSilence({ description, frameGapMs, nowMs: this.nowMs, closing: this.#closing.signal });
  }

  get isOpen(): boolean {
    return this.#transport !== undefined;
  }

  /** How often the transport was opened again after a loss. */
  get reopenings(): number {
    return Math.max(0, this.#openings - 1);
  }

  /** Counters by unit; live objects, to be copied by whoever keeps them. */
  get counters(): ReadonlyMap<number, Readonly<UnitCounters>> {
    return this.#counters;
  }

  /** How long a unit took for its last answers; undefined when it has not answered. */
  latencyOf(unit: number): AnswerLatency | undefined {
    return this.#answerTimes.latencyOf(unit);
  }

  /** Opens the transport now instead of at the first read. @throws DriverError port-… and connection-… codes */
  open(): Promise<void> {
    return this.#enqueue(() => this.#ensureOpen());
  }

  /** Closes for good; what is in flight and what waits fails with `port-closed`. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#closing.abort();
    clearTimeout(this.#timer);
    this.#inFlight?.fail(this.#closedError());
    await this.#dropTransport();
    await this.#tail;
  }

  /**
   * Reads registers; resolves with `count` words of 16 bits. Reads wait for one another in the order of the calls.
   * @throws DriverError timeout, crc-error, wrong-unit, wrong-reply, modbus-exception, port-…, line-overloaded;
   *   invalid-argument for a request that cannot be one
   */
  async readRegisters(read: RegisterRead): Promise<Uint16Array> {
    assertRead(read, this.description);
    return this.#enqueue(() => this.#read(read));
  }

  /**
   * What the unit says it is; undefined when it does not know these functions (then each may cost its time-out).
   * @throws DriverError port-…, line-overloaded
   */
  identify(request: Omit<IdentityRequest, "functionCode">): Promise<DeviceIdentity | undefined> {
    return this.#enqueue(async () => {
      await this.#ensureOpen();
      return identify((functionCode, ask) => this.#exchange({ ...request, functionCode }, ask));
    });
  }

  async #enqueue<T>(work: () => Promise<T>): Promise<T> {
    if (this.#waiting >= waitingReadsMax) {
      throw new DriverError(
        "line-overloaded",
        `${this.description}: ${this.#waiting} reads are waiting already; poll less often or spread the meters over more lines.`,
      );
    }
    this.#waiting++;
    const before = this.#tail;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#tail = promise;
    try {
      await before;
      if (this.#closed) throw this.#closedError();
      return await work();
    } finally {
      this.#waiting--;
      resolve();
    }
  }

  async #read(read: RegisterRead): Promise<Uint16Array> {
    if (this.#transport === undefined) await this.#ensureOpen();
    if (!this.#protocol.mayNeedProbe) return this.#readNow(read);
    const request = encodeReadRequest(read);
    for (let probes = 0; ; probes++) {
      // A probe that was answered by what may be an earlier answer has proven nothing.
      const count = this.#protocol.probeCount(request, read.countStep ?? 1, this.nowMs());
      if (count === undefined) break;
      if (probes >= probesMax) throw unprovenError(this.description, read);
      await this.#probe({ ...read, ...read.probe, count }, read.probe !== undefined);
    }
    return this.#readNow(read);
  }

  async #readNow(read: RegisterRead): Promise<Uint16Array> {
    const { functionCode, address, count } = read;
    const { data } = await this.#exchange(read, (library) =>
      functionCode === 3 ? library.readHoldingRegisters(address, count) : library.readInputRegisters(address, count),
    );
    return new Uint16Array(data);
  }

  /** Asks with a length that nobody owes; its valid answer proves that no late answer is on its way. */
  async #probe(read: RegisterRead, isKnownPlace: boolean): Promise<void> {
    try {
      await this.#readNow(read);
    } catch (error) {
      // A meter that refuses what all of its kind have is another model; one that was asked just anywhere may well refuse.
      if (!(error instanceof DriverError) || error.code !== "modbus-exception" || isKnownPlace) throw error;
      throw unprovenError(this.description, read, error);
    }
  }

  async #exchange<T>(read: ReadingRequest, ask: (library: Library) => Promise<T>): Promise<T> {
    const library = this.#library ?? (await this.#openLibrary());
    await this.#silence.wait(read.gapMs ?? 0, () => this.#protocol.readyAtMs);
    if (this.#closed) throw this.#closedError();
    if (this.#transport === undefined) throw this.#lostError();
    if (read.startBeforeMs !== undefined && this.nowMs() > read.startBeforeMs) {
      throw new DriverError(
        "timeout",
        `${describeRequest(this.description, read)}: its turn on the line came after the deadline of the reading; poll less often.`,
      );
    }
    const counters = this.#countersOf(read.unit);
    counters.requests++;
    library.setID(read.unit);
    this.#current = read;
    this.#isDelivered = false;
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#inFlight = {
      fail: reject,
      settle: (outcome) => {
        if (outcome.kind === "reply") {
          this.#isDelivered = true;
          this.#port.deliver(outcome.frame);
        } else reject(exchangeError(this.description, read, this.#inFlightTiming.timeoutMs, outcome));
      },
    };
    try {
      // The library's own time-out is off; after a failure its promise is left to be collected, never to be settled.
      ask(library).then(resolve, reject);
      const answer = await promise;
      counters.ok++;
      this.#timeoutsInRow = 0;
      return answer;
    } catch (error) {
      throw await this.#account(libraryError(this.description, read, error), read, counters);
    } finally {
      this.#inFlight = undefined;
      if (this.#protocol.broken) await this.#dropTransport();
    }
  }

  /** Called by the library through the port, within its functions that read. */
  #send(request: Uint8Array): void {
    const [read, transport] = [this.#current, this.#transport];
    if (read === undefined || transport === undefined || this.#inFlight === undefined) throw this.#lostError();
    const { characterMs } = this.#options;
    this.#silence.rest();
    const sentAtMs = this.nowMs() + request.length * characterMs;
    const answerMs = (replyLengthOf(request) ?? 0) * characterMs;
    const limits = { timeoutMs: read.timeoutMs, slowestAnswerMs: read.slowestAnswerMs ?? 2 * read.timeoutMs };
    // Whether a unit knows 17 and 43 says nothing about how soon it answers reads.
    const isRead = "count" in read;
    const next = isRead ? this.#answerTimes.next(read.unit, limits) : { ...limits, usualMs: limits.timeoutMs };
    const { timeoutMs, slowestAnswerMs, usualMs } = next;
    const bytes = this.#protocol.begin(request, {
      sentAtMs,
      deadlineMs: sentAtMs + timeoutMs + answerMs,
      usuallyByMs: sentAtMs + usualMs + answerMs,
      slowestAnswerMs: slowestAnswerMs + answerMs,
      canProbe: isRead && read.probe !== undefined,
    });
    this.#inFlightTiming = { sentAtMs, timeoutMs };
    this.#silence.brokenAt(sentAtMs);
    const inFlight = this.#inFlight;
    transport.write(bytes).catch((error) => inFlight.fail(error));
    transport.expect?.(replyLengthOf(request) ?? 0, characterMs);
    this.#arm();
  }

  #receive(bytes: Uint8Array): void {
    const nowMs = this.nowMs();
    this.#silence.brokenAt(nowMs);
    this.#protocol.receive(bytes, nowMs);
    this.#advance(nowMs);
  }

  #advance(nowMs: number): void {
    for (const { unit, afterMs } of this.#protocol.takeLate()) {
      this.#countersOf(unit).late++;
      if (afterMs !== undefined) this.#answerTimes.answered(unit, afterMs);
    }
    const outcome = this.#protocol.takeOutcome();
    if (outcome === undefined) {
      if (this.#inFlight !== undefined) this.#arm();
      return;
    }
    if (outcome.kind === "reply" && !outcome.wasHeld && this.#current !== undefined && "count" in this.#current) {
      const latencyMs = nowMs - this.#inFlightTiming.sentAtMs - outcome.frame.length * this.#options.characterMs;
      this.#answerTimes.answered(this.#current.unit, latencyMs);
    }
    this.#inFlight?.settle(outcome);
  }

  /**
   * Sees to it that the protocol is asked at its time. A timer that is set for an earlier time stays: it finds nothing due and is set
   * anew, which costs less than one timer a request.
   */
  #arm(): void {
    const { wakeAtMs } = this.#protocol;
    if (wakeAtMs === Number.POSITIVE_INFINITY || (this.#timer !== undefined && this.#timerAtMs <= wakeAtMs)) return;
    this.#setTimer(wakeAtMs, () => this.#wake());
  }

  #setTimer(atMs: number, wake: () => void): void {
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        wake();
      },
      Math.max(1, atMs - this.nowMs()),
    );
  }

  /** A timer may fire early (seen: 14 % of short ones), so the protocol is asked with the real time. */
  #wake(): void {
    const nowMs = this.nowMs();
    if (this.#isDelivered) this.#failUnanswered();
    // The process itself was held up: what came meanwhile is read first.
    else if (nowMs - this.#protocol.wakeAtMs > stallMs) this.#setTimer(nowMs + stallMs, () => this.#tick());
    else this.#tick();
  }

  #tick(): void {
    const nowMs = this.nowMs();
    this.#protocol.tick(nowMs);
    this.#advance(nowMs);
    // Within `deliver` the library has answered, or it never will; its promise is settled in this turn of the loop.
    if (this.#isDelivered) setImmediate(() => this.#failUnanswered());
  }

  /** modbus-serial was given the answer and said nothing: the exchange ends nevertheless. */
  #failUnanswered(): void {
    const read = this.#current;
    if (!this.#isDelivered || this.#inFlight === undefined || read === undefined) return;
    this.#inFlight.fail(libraryError(this.description, read, new Error("modbus-serial gave no answer")));
  }

  /** Counts a failure; drops the transport when it is gone or has been silent too often. Gives the error back. */
  async #account(error: DriverError, read: ReadingRequest, counters: UnitCounters): Promise<DriverError> {
    if (error.code === "timeout") {
      counters.timeouts++;
      if (!("count" in read)) return error;
      this.#answerTimes.wasSilent(read.unit);
      this.#timeoutsInRow++;
      // A lost pty and many a USB adapter give no event: only silence tells. Silence of one dead meter looks the same,
      // and opening again does no harm then. Where the path leads elsewhere by now there is nothing more to wait for.
      const isGone = (await this.#transport?.isCurrent?.()) === false;
      if (isGone || this.#timeoutsInRow >= (this.#options.timeoutsUntilReopen ?? 3)) await this.#dropTransport();
      return error;
    }
    this.#timeoutsInRow = 0;
    const isSpoilt = error.code === "crc-error" || error.code === "wrong-unit" || error.code === "wrong-reply";
    if (isSpoilt && "count" in read) this.#answerTimes.wasSpoilt(read.unit);
    if (error.code === "crc-error") counters.crcErrors++;
    else if (error.code === "wrong-unit" || error.code === "wrong-reply") counters.wrongReplies++;
    else if (error.code === "modbus-exception") counters.exceptions++;
    else if (error.code === "port-lost") await this.#dropTransport();
    return error;
  }

  async #ensureOpen(): Promise<void> {
    if (this.#transport !== undefined) return;
    const transport = await this.#options.openTransport();
    if (this.#closed) {
      await transport.close();
      throw this.#closedError();
    }
    this.#transport = transport;
    this.#timeoutsInRow = 0;
    this.#openings++;
    transport.onData((bytes) => {
      if (this.#transport === transport) this.#receive(bytes);
    });
    transport.onClosed((error) => {
      if (this.#transport !== transport) return;
      this.#transport = undefined;
      this.#protocol.reset();
      this.#inFlight?.fail(error ?? this.#lostError());
    });
  }

  async #dropTransport(): Promise<void> {
    const transport = this.#transport;
    this.#transport = undefined;
    this.#protocol.reset();
    await transport?.close();
  }

  async #openLibrary(): Promise<Library> {
    if (this.#library === undefined) {
      const { default: modbusSerial } = await import("modbus-serial");
      const library = new modbusSerial.default(this.#port);
      library.on("error", (error) => this.#inFlight?.fail(error as Error));
      library.open();
      this.#library = library;
    }
    return this.#library;
  }

  #countersOf(unit: number): UnitCounters {
    let counters = this.#counters.get(unit);
    if (counters === undefined) {
      counters = { requests: 0, ok: 0, timeouts: 0, crcErrors: 0, exceptions: 0, wrongReplies: 0, late: 0 };
      this.#counters.set(unit, counters);
    }
    return counters;
  }

  #closedError(): DriverError {
    return new DriverError("port-closed", `${this.description}: the line was closed; make a new one to read again.`);
  }

  #lostError(): DriverError {
    return new DriverError("port-lost", `${this.description}: the port was lost; it is opened again at the next read.`);
  }
}
