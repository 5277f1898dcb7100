/** The driver of a modem: the port, the time and the turns of the dialogues that a family's dialect makes. */
import type { ByteTransport } from "../byte-transport.ts";
import { DriverError, messageOf } from "../failure.ts";
import { airtimeMs } from "./airtime.ts";
import { Conversation } from "./conversation.ts";
import { createDialect } from "./dialects.ts";
import type { Dialect, Dialogue } from "./dialogue.ts";
import type {
  JoinOutcome,
  LoraDownlink,
  LoraModem,
  LoraModemOptions,
  ModemFamily,
  ModemKeys,
  SendOutcome,
} from "./modem.ts";
import { dataRates, payloadBytesMax, type RegionName } from "./region.ts";

/** Answers that are missing in a row before the port is given up. */
const probesMax = 3;
/** A server's ADR may have a frame sent so many times (NbTrans); the modem says that it is through after the last. */
const repetitionsMax = 3;
/** A receive window at the slowest data rate, with as much as a receipt in it. */
const windowMs = 3_000;
/** Request at the slowest data rate 1.5 s, second window 6 s after it, its accept 2 s; and what some modems take for themselves. */
const joinGuardMs = 25_000;
const marginMs = 2_000;
const fPortMax = 223;

export class SerialModem implements LoraModem {
  readonly #options: LoraModemOptions;
  #dialect: Dialect;
  #port: { readonly transport: ByteTransport; readonly conversation: Conversation } | undefined;
  #description = "a port that was never open";
  #firmware: string | undefined;
  #joined: boolean | undefined;
  #dataRate: number | undefined;
  #isSuspect = false;
  #turn: Promise<unknown> = Promise.resolve();
  #downlinkListener: (downlink: LoraDownlink) => void = () => undefined;
  #lostListener: (reason: string) => void = () => undefined;

  constructor(options: LoraModemOptions) {
    this.#options = options;
    this.#dialect = createDialect(options.family, this.#description);
  }

  get family(): ModemFamily {
    return this.#options.family;
  }

  get description(): string {
    return this.#description;
  }

  get firmware(): string {
    return this.#firmware ?? "";
  }

  onDownlink(listener: (downlink: LoraDownlink) => void): void {
    this.#downlinkListener = listener;
  }

  onLost(listener: (reason: string) => void): void {
    this.#lostListener = listener;
  }

  begin(): Promise<{ joined: boolean; devEui?: string }> {
    return this.#inTurn(async () => {
      await this.#openAndProbe();
      const { joined, devEui } = await this.#run(this.#dialect.setUp());
      this.#joined = joined;
      return { joined: joined ?? true, ...(devEui !== undefined && { devEui }) };
    });
  }

  provision(keys: ModemKeys, region: RegionName): Promise<{ devEui: string }> {
    return this.#inTurn(async () => {
      checkKeys(keys, region);
      await this.#openAndProbe();
      const devEui = await this.#run(this.#dialect.provision(keys, region));
      this.#joined = false;
      try {
        await this.#run(this.#dialect.restart());
      } catch (error) {
        // A module with a USB port of its own is gone from the bus for the time of its reset; all was written and read back before.
        if (!(error instanceof DriverError) || error.code !== "port-lost") throw error;
      }
      return { devEui };
    });
  }

  join(): Promise<JoinOutcome> {
    return this.#inTurn(async () => {
      try {
        await this.#trust();
        const outcome = await this.#run(this.#dialect.join(joinGuardMs));
        if (outcome.kind === "joined") this.#joined = true;
        if (outcome.kind === "fault") this.#isSuspect = true;
        return outcome;
      } catch (error) {
        return this.#failed(error);
      }
    });
  }

  send(port: number, bytes: Uint8Array): Promise<SendOutcome> {
    if (!Number.isInteger(port) || port < 1 || port > fPortMax) throw new RangeError(`FPort ${port}`);
    return this.#inTurn(async () => {
      const bytesMax = this.#bytesMax(false);
      if (bytesMax !== undefined && bytes.length > bytesMax)
        return { kind: "too-long", bytesMax: this.#bytesMax(true) ?? bytesMax, emptyFrameSent: false };
      try {
        await this.#trust();
        const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
        const { clock } = this.#options.timing;
        const beganMs = clock.monotonicMs();
        const outcome = await this.#run(this.#dialect.send({ port, hex, ...this.#waits(bytes.length) }));
        const transmissions = this.#transmissions(bytes.length, clock.monotonicMs() - beganMs);
        this.#report(this.#dialect.flush());
        if (outcome.kind === "sent") this.#joined = true;
        if (outcome.kind === "not-joined") this.#joined = false;
        if (outcome.kind === "fault") this.#isSuspect = true;
        const isRepeated = transmissions > 1 && (outcome.kind === "sent" || outcome.kind === "fault");
        return isRepeated ? { ...outcome, transmissions } : outcome;
      } catch (error) {
        return this.#failed(error);
      }
    });
  }

  state(): Promise<{ joined: boolean; dataRate?: number; bytesMax?: number }> {
    return this.#inTurn(async () => {
      await this.#trust();
      try {
        const { joined = this.#joined, ...state } = await this.#run(this.#dialect.state());
        this.#joined = joined;
        this.#dataRate = state.dataRate;
        return { joined: joined ?? true, ...state };
      } catch (error) {
        this.#isSuspect = true;
        throw error;
      }
    });
  }

  async close(): Promise<void> {
    const error = new DriverError("port-closed", `LoRaWAN modem at ${this.#description}: it was closed.`);
    this.#port?.conversation.interrupt(error);
    await this.#closePort();
  }

  /** One command at a time: what is asked meanwhile waits. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  async #openAndProbe(): Promise<void> {
    try {
      if (this.#port === undefined) await this.#open();
      // A command that was begun is ended, whoever began it.
      await this.#run(silence());
      for (let tries = 1; ; tries++) {
        this.#firmware = await this.#run(this.#dialect.probe());
        if (this.#firmware !== undefined) break;
        if (tries === probesMax) throw this.#noAnswer();
      }
      this.#isSuspect = false;
    } catch (error) {
      await this.#closePort();
      throw error;
    }
  }

  async #open(): Promise<void> {
    const transport = await this.#options.openTransport();
    const dialect = createDialect(this.#options.family, transport.description);
    const isCurrent = (): boolean => this.#port?.transport === transport;
    const onLine = (line: string, isBannerExpected: boolean): void => {
      if (!isCurrent()) return;
      this.#report(dialect.observe(line));
      if (dialect.isBanner(line) && !isBannerExpected) this.#lose("it was reset");
    };
    this.#description = transport.description;
    this.#dialect = dialect;
    const conversation = new Conversation({ transport, timing: this.#options.timing, onLine });
    this.#port = { transport, conversation };
    transport.onClosed((error) => {
      if (isCurrent()) this.#lose(error === undefined ? "the port was closed" : messageOf(error));
    });
  }

  /** Nothing is made of an answer before the modem has shown that it is there and through with what it was asked before. */
  async #trust(): Promise<void> {
    const port = this.#port;
    if (port === undefined) throw this.#notOpen();
    if (!this.#isSuspect) return;
    if ((await port.transport.isCurrent?.()) === false)
      throw this.#lose("its path leads to another device now, or to none");
    for (let tries = 1; tries <= probesMax; tries++) {
      if ((await this.#run(this.#dialect.probe())) === undefined) continue;
      this.#isSuspect = false;
      return;
    }
    this.#lose("it answers no more");
    throw this.#noAnswer();
  }

  #run<T>(dialogue: Dialogue<T>): Promise<T> {
    if (this.#port === undefined) throw this.#notOpen();
    return this.#port.conversation.run(dialogue);
  }

  #report(downlink: LoraDownlink | undefined): void {
    if (downlink !== undefined) this.#downlinkListener(downlink);
  }

  /** The end of what was known of the modem: told once, until begin(). */
  #lose(reason: string): DriverError {
    const error = new DriverError("port-lost", `LoRaWAN modem at ${this.#description}: ${reason}.`);
    if (this.#port === undefined) return error;
    this.#joined = undefined;
    this.#dataRate = undefined;
    this.#port.conversation.interrupt(error);
    void this.#closePort();
    this.#lostListener(reason);
    return error;
  }

  async #closePort(): Promise<void> {
    const port = this.#port;
    this.#port = undefined;
    await port?.transport.close();
  }

  #notOpen(): DriverError {
    return new DriverError("port-closed", `LoRaWAN modem at ${this.#description}: it is not open; begin anew.`);
  }

  #noAnswer(): DriverError {
    return new DriverError(
      "timeout",
      `LoRaWAN modem at ${this.#description}: expected a modem of the family ${this.family} to say its version, got no answer that is one. ` +
        "'ecp scan --lora' shows family and speed of the modems that are there.",
    );
  }

  #failed(error: unknown): { kind: "fault"; detail: string } {
    if (!(error instanceof DriverError)) throw error;
    this.#isSuspect = true;
    return { kind: "fault", detail: error.message };
  }

  /** What fits at the data rate that is known: as a device may assume, or as much as a server may have allowed it. */
  #bytesMax(isCautious: boolean): number | undefined {
    const { region } = this.#options;
    if (this.#dataRate === undefined) return undefined;
    return payloadBytesMax(region, this.#dataRate, isCautious ? {} : { dwell: false, repeaterSafe: false });
  }

  #waits(bytes: number): { guardMs: number; windowsMs: number } {
    const { region } = this.#options;
    const afterMs = this.#secondWindowMs + windowMs;
    const slowest = dataRates(region)[0]?.dataRate ?? 0;
    return {
      guardMs: repetitionsMax * (this.#airtimeAt(slowest, bytes) + afterMs) + marginMs,
      windowsMs: this.#airtimeAt(this.#dataRate ?? slowest, bytes) + afterMs,
    };
  }

  /** From the end of a frame to the second window. */
  get #secondWindowMs(): number {
    return ((this.#options.rx1DelayS ?? 1) + 1) * 1_000;
  }

  /** At the slowest data rate where there is none of that number. */
  #airtimeAt(dataRate: number, bytes: number): number {
    const { region } = this.#options;
    const rate = dataRates(region).find((known) => known.dataRate === dataRate) ?? dataRates(region)[0];
    const known = rate?.dataRate ?? 0;
    const most = payloadBytesMax(region, known, { dwell: false, repeaterSafe: false }) ?? bytes;
    return airtimeMs(region, known, Math.min(bytes, most));
  }

  /** How often a frame can have been on the air: each time ends with its second window. An AT_Slave does not say when it is through. */
  #transmissions(bytes: number, tookMs: number): number {
    if (this.family === "at-slave" || this.#dataRate === undefined) return 1;
    return Math.max(1, Math.floor(tookMs / (this.#airtimeAt(this.#dataRate, bytes) + this.#secondWindowMs)));
  }
}

/** An empty line, and a moment in which what it ended may be answered. */
function* silence(): Dialogue<void> {
  for (let line = yield { write: "", waitMs: 200, expectsBanner: true }; line !== undefined; ) line = yield {};
}

/** @throws DriverError invalid-argument, without the key */
function checkKeys({ joinEui, devEui, appKey, subBand }: ModemKeys, region: RegionName): void {
  const hasSubBands = region === "US915" || region === "AU915";
  const wrong =
    (!/^[0-9a-f]{16}$/i.test(joinEui) && "JoinEUI: 16 hexadecimal digits") ||
    (devEui !== undefined && !/^[0-9a-f]{16}$/i.test(devEui) && "DevEUI: 16 hexadecimal digits") ||
    (!/^[0-9a-f]{32}$/i.test(appKey) && "AppKey: 32 hexadecimal digits") ||
    (subBand !== undefined &&
      !(hasSubBands && subBand >= 1 && subBand <= 8) &&
      "a sub-band from 1 to 8, in US915 or AU915");
  if (wrong) throw new DriverError("invalid-argument", `LoRaWAN keys: expected ${wrong}, got something else.`);
}
