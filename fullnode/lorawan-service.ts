/**
 * A full node's LoRaWAN side as it runs: the lease, and while it is held the connection to the network server's broker and the intake.
 * The fragments of a packet must meet in one place, so of the nodes that share a store one at a time takes frames; the others stand by.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as pause } from "node:timers/promises";
import { LorawanIntake, type LorawanIntakeParts } from "./lorawan-intake.ts";
import { eventBytesMax, type NetworkServer } from "./lorawan-uplink.ts";
import { type BrokerAddress, MqttLink } from "./mqtt-link.ts";

const leaseRenewMs = 5_000;
const leaseTtlMs = 15_000;
/** Before it runs out: what is begun now must be at its end by then. */
const leaseMarginMs = 2_000;
const lookAroundMs = 2_000;
/** What is larger is refused by the intake; what is far larger must not be gathered in memory first. */
const packetBytesMax = 4 * eventBytesMax;
/** Commands that the broker has not acknowledged, or taken off the line: one that takes no more must not fill the memory. */
const commandsInFlightMax = 1_000;

export interface LorawanOptions {
  readonly server: NetworkServer;
  readonly broker: BrokerAddress;
  readonly receipts: LorawanIntakeParts["receipts"];
  /** Names what is leased; nodes on one store that serve the same application have the same. */
  readonly lease: string;
}

/** "standby": another node has the lease. "connecting": this one has it, and no connection to the network server's broker. */
export type LorawanState = "standby" | "connecting" | "connected";

export interface LorawanStatus {
  readonly state: LorawanState;
  /** While the lease is held. */
  readonly counts: LorawanIntake["counts"] | undefined;
}

export interface LorawanServiceParts
  extends LorawanOptions,
    Pick<LorawanIntakeParts, "store" | "registry" | "keys" | "path" | "clock" | "log" | "report"> {
  readonly onState: (state: LorawanState) => void;
  readonly renewMs?: number;
  readonly ttlMs?: number;
}

export class LorawanService {
  readonly #parts: LorawanServiceParts;
  readonly #holder = `${hostname()}/${process.pid}/${randomUUID()}`;
  readonly #abort = new AbortController();
  readonly #running: Promise<void>;
  #intake: LorawanIntake | undefined;
  #link: MqttLink | undefined;
  #state: LorawanState = "standby";
  /** By the monotonic clock; the lease is not relied on after it. */
  #heldUntilMs = 0;
  #leaseFailed = false;
  #commandsInFlight = 0;

  constructor(parts: LorawanServiceParts) {
    this.#parts = parts;
    parts.onState("standby");
    this.#running = this.#run();
  }

  get status(): LorawanStatus {
    return { state: this.#state, counts: this.#intake?.counts };
  }

  get #holdsLease(): boolean {
    return this.#parts.clock.monotonicMs() < this.#heldUntilMs;
  }

  async #run(): Promise<void> {
    const { renewMs = leaseRenewMs, log } = this.#parts;
    const { signal } = this.#abort;
    let renewAtMs = 0;
    while (!signal.aborted) {
      const nowMs = this.#parts.clock.monotonicMs();
      if (nowMs >= renewAtMs) {
        renewAtMs = nowMs + renewMs;
        await this.#renew();
      }
      if (!this.#holdsLease) await this.#standBy(false);
      else
        await this.#serve().catch((error: Error) =>
          // The store gives no answer: tried again until it does, or until the lease has run out.
          log.warn("LoRaWAN waits for the store", { got: error.message }),
        );
      await pause(Math.min(renewMs, lookAroundMs), undefined, { signal }).catch(() => undefined);
    }
  }

  async #renew(): Promise<void> {
    const { store, lease, clock, log, ttlMs = leaseTtlMs } = this.#parts;
    const askedMs = clock.monotonicMs();
    try {
      const isOurs = await store.lorawan.takeLease(lease, this.#holder, ttlMs, clock.wallMs());
      this.#heldUntilMs = isOurs ? askedMs + ttlMs - Math.min(leaseMarginMs, ttlMs / 4) : 0;
      this.#leaseFailed = false;
    } catch (error) {
      if (!this.#leaseFailed)
        log.warn("the LoRaWAN lease could not be renewed; trying again", {
          got: (error as Error).message,
          todo: "look at the store; another node takes over when the lease has run out",
        });
      this.#leaseFailed = true;
    }
  }

  async #serve(): Promise<void> {
    if (this.#intake) {
      await this.#intake.lookAround();
      return;
    }
    const { server, broker, log } = this.#parts;
    const intake = await LorawanIntake.open({
      ...this.#parts,
      publishCommand: (topic, json) => {
        if (!this.#link?.isConnected || !this.#holdsLease || this.#commandsInFlight >= commandsInFlightMax)
          return false;
        this.#commandsInFlight++;
        this.#link.publish(topic, json, server.qos, () => this.#commandsInFlight--);
        return true;
      },
    });
    this.#intake = intake;
    this.#say("connecting");
    this.#link = new MqttLink({
      broker: server.name === "tts" ? { ...broker, protocolVersion: 4 } : broker,
      clientId: `ecp-lora-${randomBytes(6).toString("hex")}`,
      filters: server.filters,
      qos: server.qos,
      // What was published meanwhile would come out of order, and late: devices send again what was not answered.
      sessionExpiryS: 0,
      packetBytesMax,
      name: "the network server's broker",
      advice: {
        user: "check --lorawan-user and --lorawan-password-file",
        subscription: "let this user read the application's events; check --lorawan-application",
        absent: "devices send again what is not answered",
      },
      log,
      // Also where the store gives no answer at all, and nobody has come to stand by yet: another node may be at it.
      onMessage: (topic, payload) => {
        if (this.#holdsLease) intake.receive(topic, payload);
      },
      onConnected: (version) => {
        this.#commandsInFlight = 0;
        if (this.#intake === intake) this.#say(version === undefined ? "connecting" : "connected");
      },
    });
  }

  /** @param isOrderly nobody else has the lease yet: what is known of sessions is saved */
  async #standBy(isOrderly: boolean): Promise<void> {
    const intake = this.#intake;
    const link = this.#link;
    if (intake === undefined) return;
    this.#intake = undefined;
    if (isOrderly) await intake.stop();
    else intake.abandon();
    this.#link = undefined;
    await link?.close();
    this.#say("standby");
  }

  #say(state: LorawanState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#parts.onState(state);
  }

  /** Finishes what is in hand, and lets another node have the lease. */
  async stop(): Promise<void> {
    const { store, lease, log } = this.#parts;
    this.#abort.abort();
    await this.#running;
    try {
      await this.#standBy(this.#holdsLease);
      await store.lorawan.releaseLease(lease, this.#holder);
    } catch (error) {
      log.warn("the LoRaWAN lease was not given back; it runs out by itself", { got: (error as Error).message });
    }
  }
}
