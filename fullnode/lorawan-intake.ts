/**
 * The path of a frame through the full node, top to bottom:
 *
 *   event of the network server → its form → modem bound? → came before? → port
 *     → one frame: packet ────────────────┐
 *     → fragment: session, reassembled ───┴→ record → record path → stored (POINT OF NO RETURN) → SCHC ACK or receipt → downlink
 *
 * Without a broker and without a timer of its own but for saving: events come in by {@link LorawanIntake.receive}, commands go out by a
 * callback. A frame is answered within the same turn of the event loop, or as soon as its record is stored: the server waits for a tenth of
 * a second (ChirpStack) before it looks for a downlink.
 */
import { randomUUID } from "node:crypto";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { fragmentPorts, receiptPort, recordOfPacket, recordPort } from "../protocol/lorawan.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { decodeReceipt } from "../protocol/receipt.ts";
import { Refusal } from "../protocol/refusal.ts";
import { decodeFragment } from "../protocol/schc.ts";
import { LoraReceipts } from "./lora-receipt-building.ts";
import { LorawanDownlinks } from "./lorawan-downlinks.ts";
import { countFrame, joined, LorawanModems, type Modem } from "./lorawan-modems.ts";
import { LorawanSessions } from "./lorawan-sessions.ts";
import { type After, LorawanStateWriter } from "./lorawan-state-writer.ts";
import {
  type LorawanEvent,
  type LorawanReason,
  LorawanRefusal,
  type LorawanRoute,
  type LorawanUplink,
  lorawanSentences,
  type NetworkServer,
} from "./lorawan-uplink.ts";
import type { NodeKeys } from "./node-keys.ts";
import type { RecordAnswer } from "./record-event.ts";
import type { RecordPath } from "./record-path.ts";
import { RefusalTally, type RefusedSample } from "./refusal-tally.ts";
import type { Registry } from "./registry.ts";
import type { ReceiverAction } from "./schc-receiver.ts";
import type { Store } from "./store.ts";

const sweepEveryMs = 60_000;
const noteEveryMs = 1_000;
const hourMs = 3_600_000;
/** What the record path says of a record that is on disk, in its chain or as evidence. */
const keptOutcomes: ReadonlySet<RecordAnswer["outcome"]> = new Set([
  "stored",
  "duplicate",
  "fork",
  "epoch-ended",
] as const);

export interface LorawanIntakeParts {
  readonly server: NetworkServer;
  readonly store: Store;
  readonly path: Pick<RecordPath, "push" | "idle">;
  readonly registry: Registry;
  readonly keys: Pick<NodeKeys, "loraMac">;
  /** Gives the network server a command; false where it cannot now. */
  readonly publishCommand: (topic: string, json: string) => boolean;
  /** Hours between the receipts of a device, which then speak of all up to them; "each": one for each record. */
  readonly receipts: "each" | number;
  readonly clock: Clock;
  readonly after?: After;
  readonly log: Log;
  readonly report?: (sample: RefusedSample<LorawanReason>) => void;
  /** Gives a UUID; for runs that must be the same again. */
  readonly newId?: () => string;
}

export interface LorawanCounts {
  /** Uplinks that were taken, by what was in them. */
  readonly frames: { readonly record: number; readonly fragment: number; readonly empty: number };
  readonly refused: Partial<Record<LorawanReason, number>>;
  readonly joins: number;
  /** Packets put together of fragments. */
  readonly packets: number;
  readonly sessions: number;
  readonly modems: number;
  readonly answers: number;
  readonly receipts: number;
  readonly downlinks: LorawanDownlinks["counts"];
}

export class LorawanIntake {
  readonly #parts: LorawanIntakeParts;
  readonly #writer: LorawanStateWriter;
  readonly #modems: LorawanModems;
  readonly #sessions: LorawanSessions;
  readonly #downlinks: LorawanDownlinks;
  readonly #receipts: LoraReceipts;
  readonly #refusals: RefusalTally<LorawanReason>;
  readonly #counts = { record: 0, fragment: 0, empty: 0, joins: 0, packets: 0, answers: 0, receipts: 0 };
  /** The receipt that each modem was given last, for one that asks again. */
  readonly #lastReceipts = new WeakMap<Modem, Uint8Array>();
  /** Receipts that are being made. */
  readonly #making = new Set<Promise<void>>();
  #foreignChanges: number | undefined;
  #sweepNextMs: number;
  #noteNextMs = 0;
  /** Remarks of the server since the last one that was logged, that one included. */
  #unsaid = 0;
  #isClosing = false;
  #stopped = false;

  /** Reads who is bound and what sessions were open. */
  static async open(parts: LorawanIntakeParts): Promise<LorawanIntake> {
    const intake = new LorawanIntake(parts);
    intake.#foreignChanges = await parts.store.foreignChanges();
    await intake.#modems.load();
    let spoilt = 0;
    for (const session of await parts.store.lorawan.sessions()) {
      const modem = intake.#modems.get(session.devEui);
      if (modem === undefined) continue;
      const packet = intake.#sessions.restore(session);
      if (packet === false) spoilt++;
      // The record path may not have heard of it before the node ended. How the device is reached is known when it sends again.
      else if (packet) intake.#push(modem, undefined, packet, session.port);
    }
    if (spoilt > 0)
      parts.log.warn("stored sessions of fragments could not be read and begin anew", { sessions: spoilt });
    return intake;
  }

  private constructor(parts: LorawanIntakeParts) {
    const { clock, server, store, publishCommand } = parts;
    this.#parts = parts;
    this.#modems = new LorawanModems(store.lorawan);
    this.#sessions = new LorawanSessions(clock);
    this.#writer = new LorawanStateWriter(store.lorawan, this.#sessions, parts.log, parts.after);
    this.#receipts = new LoraReceipts(store, parts.keys);
    this.#downlinks = new LorawanDownlinks({
      ...{ server, clock },
      publish: ({ topic, json }) => publishCommand(topic, json),
      newId: parts.newId ?? randomUUID,
    });
    this.#refusals = new RefusalTally(clock, (sample) => {
      const { detail, ...what } = sample;
      const sentence = lorawanSentences[sample.reason];
      const said = detail === undefined ? sentence : `${sentence} (${detail})`;
      parts.log.warn("a frame was refused", { ...what, detail: said });
      parts.report?.(sample);
    });
    this.#sweepNextMs = clock.monotonicMs() + sweepEveryMs;
  }

  get counts(): LorawanCounts {
    const { record, fragment, empty, ...counts } = this.#counts;
    return {
      ...counts,
      frames: { record, fragment, empty },
      refused: this.#refusals.totals,
      sessions: this.#sessions.size,
      modems: this.#modems.size,
      downlinks: this.#downlinks.counts,
    };
  }

  /** An event from the server's broker. Never throws for what it is. */
  receive(topic: string, payload: Uint8Array): void {
    if (this.#isClosing) return;
    try {
      this.#take(this.#parts.server.read(topic, payload));
    } catch (error) {
      if (!(error instanceof LorawanRefusal)) throw error;
      this.#refusals.add(error.reason, topic, error.detail);
    }
  }

  /** Throws {@link LorawanRefusal}. */
  #take(event: LorawanEvent): void {
    switch (event.kind) {
      case "uplink":
        this.#takeUplink(event);
        return;
      case "join": {
        const modem = this.#modemOf(event.route);
        this.#counts.joins++;
        joined(modem, event.devAddr);
        this.#writer.modemChanged(modem);
        return;
      }
      case "downlink":
        if (event.state === "failed")
          this.#note(
            "the network server did not send a downlink",
            event.deviceTopic,
            event.detail ?? "no reason given",
          );
        this.#downlinks.settled(event.deviceTopic, event.id, event.state);
        return;
      case "warning":
        this.#note("the network server says", event.route.topic, `${event.code}: ${event.detail}`);
        return;
      case "other":
        return;
    }
  }

  /** What a server says may come as often as somebody sends it frames: at most one line a second. */
  #note(message: string, device: string, got: string): void {
    const nowMs = this.#parts.clock.monotonicMs();
    this.#unsaid++;
    if (nowMs < this.#noteNextMs) return;
    this.#parts.log.warn(message, { device, got, count: this.#unsaid });
    this.#noteNextMs = nowMs + noteEveryMs;
    this.#unsaid = 0;
  }

  #modemOf({ devEui }: LorawanRoute): Modem {
    const modem = this.#modems.get(devEui);
    if (modem === undefined) throw new LorawanRefusal("unknown-device", `DevEUI ${devEui}`);
    return modem;
  }

  #takeUplink({ route, devAddr, fCnt, fPort, bytes }: LorawanUplink): void {
    const modem = this.#modemOf(route);
    const refused = countFrame(modem, devAddr, fCnt);
    if (refused) throw new LorawanRefusal(refused, `frame ${fCnt}`);
    modem.lastMs = this.#parts.clock.wallMs();
    this.#writer.modemChanged(modem);
    this.#downlinks.heard(route);
    if (fPort === 0 || bytes.length === 0) this.#counts.empty++;
    else if (fPort === recordPort) {
      this.#counts.record++;
      this.#push(modem, route, bytes, fPort);
    } else if ((fragmentPorts as readonly number[]).includes(fPort))
      this.#takeFragment(modem, route, fPort, fCnt, bytes);
    else throw new LorawanRefusal("foreign-port", `FPort ${fPort}`);
  }

  #takeFragment(modem: Modem, route: LorawanRoute, port: number, fCnt: number, bytes: Uint8Array): void {
    try {
      decodeFragment(bytes);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      throw new LorawanRefusal("bad-fragment", error.message);
    }
    const { devEui } = modem;
    const receiver = this.#sessions.receiverFor(devEui, port);
    if (receiver === undefined) throw new LorawanRefusal("too-many-sessions");
    this.#counts.fragment++;
    const actions = receiver.receive(bytes, fCnt, this.#parts.clock.monotonicMs(), `${modem.joins}`);
    this.#sessions.changed(devEui, port);
    this.#act(modem, route, port, actions);
    // It has its packet's answer and asks again: the receipt that was to tell it so was lost.
    const last = this.#lastReceipts.get(modem);
    if (last && receiver.hasStored && actions.length > 0) this.#queueReceipt(route, last);
  }

  #act(modem: Modem, route: LorawanRoute | undefined, port: number, actions: readonly ReceiverAction[]): void {
    for (const action of actions) {
      if (action.kind === "packet") {
        this.#counts.packets++;
        this.#push(modem, route, action.packet, port);
      } else if (route && !this.#stopped) {
        this.#counts.answers++;
        this.#downlinks.queue(route, "answer", port, action.bytes);
      }
    }
  }

  #push(modem: Modem, route: LorawanRoute | undefined, packet: Uint8Array, port: number): void {
    let record: Uint8Array;
    try {
      record = recordOfPacket(packet);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#refusals.add("bad-packet", route?.topic ?? modem.devEui, error.message);
      this.#settle(modem, route, packet, port, "refused", true);
      return;
    }
    this.#parts.path.push(topicOf(modem.name, "record"), record, (answer) => {
      if (answer.outcome === "queue-full") return; // nothing is decided; the device asks again
      const isKept = keptOutcomes.has(answer.outcome);
      const isReceiptDue = isKept && route !== undefined && this.#isReceiptDue(modem, answer);
      // One downlink says both where it can: the receipt ends the session too. A device that misses it asks, and hears the ACK.
      this.#settle(modem, route, packet, port, isKept ? "stored" : "declined", !isReceiptDue);
      if (isReceiptDue) this.#giveReceipt(modem, route, answer);
    });
  }

  /** Tells the session what became of its packet. */
  #settle(
    modem: Modem,
    route: LorawanRoute | undefined,
    packet: Uint8Array,
    port: number,
    outcome: "stored" | "declined" | "refused",
    isAnswered: boolean,
  ): void {
    const receiver = port === recordPort ? undefined : this.#sessions.get(modem.devEui, port);
    if (receiver === undefined) return;
    const nowMs = this.#parts.clock.monotonicMs();
    const actions = outcome === "declined" ? receiver.declined(packet) : receiver[outcome](nowMs, packet);
    this.#sessions.changed(modem.devEui, port);
    this.#writer.soon();
    if (isAnswered) this.#act(modem, route, port, actions);
  }

  #isReceiptDue(modem: Modem, { outcome, receipt }: RecordAnswer): boolean {
    const { receipts, clock } = this.#parts;
    if (receipt === undefined) return false;
    // What comes again is asked about.
    if (receipts === "each" || outcome === "duplicate") return true;
    const sinceMs = clock.wallMs() - modem.receiptMs;
    return sinceMs >= receipts * hourMs || sinceMs < 0;
  }

  #giveReceipt(modem: Modem, route: LorawanRoute, answer: RecordAnswer): void {
    const given = this.#makeReceipt(modem, answer).then(
      (bytes) => {
        if (bytes === undefined) return;
        this.#lastReceipts.set(modem, bytes);
        modem.receiptMs = this.#parts.clock.wallMs();
        this.#writer.modemChanged(modem);
        this.#queueReceipt(route, bytes);
      },
      // A device that gets no receipt asks again.
      (error: Error) => this.#parts.log.warn("no receipt was made", { devEui: modem.devEui, got: error.message }),
    );
    this.#making.add(given);
    void given.finally(() => this.#making.delete(given));
  }

  async #makeReceipt({ name }: Modem, { outcome, receipt, place }: RecordAnswer): Promise<Uint8Array | undefined> {
    const device = await this.#parts.registry.device(name);
    if (device === undefined || receipt === undefined || place === undefined) return undefined;
    const { content } = decodeReceipt(receipt);
    return await this.#receipts.receipt(device, content, {
      ...{ sequence: place.sequence, digest: place.digest },
      isEvidence: outcome === "fork" || outcome === "epoch-ended",
      isRepeated: outcome === "duplicate",
    });
  }

  #queueReceipt(route: LorawanRoute, bytes: Uint8Array): void {
    if (this.#stopped) return;
    this.#counts.receipts++;
    this.#downlinks.queue(route, "receipt", receiptPort, bytes);
  }

  /** Looks for modems that others have bound, and ends what was silent for too long. For calling every few seconds. */
  async lookAround(): Promise<void> {
    const { store, clock } = this.#parts;
    const changes = await store.foreignChanges();
    if (changes !== this.#foreignChanges) {
      this.#foreignChanges = changes;
      for (const devEui of await this.#modems.load()) this.#sessions.forgetModem(devEui, fragmentPorts);
      this.#writer.soon();
    }
    if (clock.monotonicMs() < this.#sweepNextMs) return;
    this.#sweepNextMs = clock.monotonicMs() + sweepEveryMs;
    // Of a silence of hours nobody waits for the word; it would only meet the next packet.
    if (this.#sessions.expire().length > 0) this.#writer.soon();
    this.#downlinks.expire();
  }

  /** Fulfilled when all that was received has been worked on, answered and saved. */
  async idle(): Promise<void> {
    await this.#parts.path.idle();
    await Promise.all(this.#making);
    await this.#writer.save();
  }

  /** Takes nothing more, answers what it has, and saves what it knows. */
  async stop(): Promise<void> {
    this.#isClosing = true;
    await this.idle();
    this.abandon();
  }

  /** Takes nothing more, answers nothing and saves nothing: another node may be at it by now. */
  abandon(): void {
    this.#isClosing = true;
    this.#stopped = true;
    this.#writer.stop();
    this.#refusals.flush();
  }
}
