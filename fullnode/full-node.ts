/** A full node in one object: lock, keys, store, broker, intake and the path of records, started and stopped in order. */
import { createHash, randomBytes } from "node:crypto";
import { realpathSync } from "node:fs";
import { hostname } from "node:os";
import { systemClock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { lockData } from "./data-lock.ts";
import { startEmbeddedBroker } from "./embedded-broker.ts";
import { type LorawanOptions, LorawanService, type LorawanState, type LorawanStatus } from "./lorawan-service.ts";
import type { LorawanReason } from "./lorawan-uplink.ts";
import { MqttIntake, nodeClientIdStart } from "./mqtt-intake.ts";
import type { BrokerAddress, MqttVersion } from "./mqtt-link.ts";
import { loadNodeKeys } from "./node-keys.ts";
import { type ObservationOptions, startObservation } from "./observation.ts";
import { RecordPath, type RecordPathParts } from "./record-path.ts";
import type { RefusedSample } from "./refusal-tally.ts";
import { Registry } from "./registry.ts";
import type { Store } from "./store.ts";
import { openStore } from "./store-address.ts";

/** How soon a device that another process has enrolled is noticed, in silence; records are looked up at once. */
const lookAroundMs = 2_000;

export interface FullNodeOptions extends ObservationOptions {
  readonly data: string;
  /** Where the embedded broker listens, or which other broker to use. */
  readonly broker:
    | { readonly listen: { readonly host: string; readonly port: number } }
    | { readonly use: BrokerAddress; readonly shareGroup?: string };
  /** For tests of what a store must not do. */
  readonly openStore?: (data: string) => Promise<Store>;
  /** Records over LoRaWAN too. */
  readonly lorawan?: LorawanOptions;
  readonly log: Log;
  readonly report: (event: Parameters<RecordPathParts["report"]>[0] | LorawanRunEvent) => void;
  readonly onConnected: (version: MqttVersion | undefined) => void;
  readonly fail: RecordPathParts["fail"];
}

/** What the LoRaWAN side says of itself. */
export type LorawanRunEvent =
  | { readonly event: "lorawan"; readonly state: LorawanState }
  | (RefusedSample<LorawanReason> & { readonly event: "frame-refused" });

export interface FullNode {
  readonly did: string;
  /** mqtt://host:port */
  readonly brokerUrl: string;
  readonly metricsUrl: string | undefined;
  readonly counts: RecordPath["counts"];
  /** Where it takes frames of LoRaWAN. */
  readonly lorawan: LorawanStatus | undefined;
  /** Finishes the batch in hand, sends its receipts, and lets go of everything. */
  stop(): Promise<void>;
}

/** Throws NodeError where something is missing, damaged or in use. */
export async function startFullNode(options: FullNodeOptions): Promise<FullNode> {
  const { data, log } = options;
  const keys = loadNodeKeys(data);
  const store = await (options.openStore ?? openStore)(data);
  const undo: (() => unknown)[] = [() => store.close()];
  const stopAll = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const lock = lockData(data);
    undo.push(() => lock.release());
    const registry = new Registry(store);
    const isKnownDevice = async (name: string) => (await registry.device(name)) !== undefined;
    const embedded =
      "listen" in options.broker
        ? await startEmbeddedBroker(options.broker.listen.host, options.broker.listen.port, log, isKnownDevice)
        : undefined;
    if (embedded) undo.push(() => embedded.close());
    const address: BrokerAddress =
      "use" in options.broker
        ? options.broker.use
        : {
            host: reachable(options.broker.listen.host),
            port: embedded?.port ?? 0,
            protocolVersion: 4,
            ...embedded?.credentials,
          };

    const path = new RecordPath({
      store,
      keys,
      log,
      clock: systemClock,
      registry,
      publish: (receipts) => intake.publish(receipts),
      report: (event) => {
        if (event.event === "stored") observation.stored(event);
        options.report(event);
      },
      fail: options.fail,
    });
    let lorawan: LorawanService | undefined;
    const observation = await startObservation({
      ...{ ...options, store, path, clock: systemClock, node: keys.did.slice(-12) },
      ...(options.lorawan && { lorawanStatus: () => lorawan?.status }),
    });
    undo.push(() => observation.stop());
    const intake = new MqttIntake({
      broker: address,
      ...clientOf(options.broker, keys.did, data),
      onMessage: (topic, payload) => path.push(topic, payload),
      onConnected: (version) => {
        observation.connected(version !== undefined);
        options.onConnected(version);
      },
      log,
    });
    undo.push(() => intake.close());
    undo.push(() => path.stop());
    if (options.lorawan) {
      const service = new LorawanService({
        ...{ ...options.lorawan, store, registry, keys, path, clock: systemClock, log },
        report: (sample) => options.report({ event: "frame-refused", ...sample }),
        onState: (state) => options.report({ event: "lorawan", state }),
      });
      lorawan = service;
      undo.push(() => service.stop());
    }
    path.lookAround();
    const timer = setInterval(() => path.lookAround(), lookAroundMs).unref();
    undo.push(() => clearInterval(timer));
    return {
      did: keys.did,
      brokerUrl: `mqtt://${isIpv6(address.host) ? `[${address.host}]` : address.host}:${address.port}`,
      metricsUrl: observation.metricsUrl,
      get counts() {
        return path.counts;
      },
      get lorawan() {
        return lorawan?.status;
      },
      stop: stopAll,
    };
  } catch (error) {
    await stopAll();
    throw error;
  }
}

/**
 * A broker knows a client by its id, and nodes may have the same keys: so the id is of the machine and the data folder too, the same at
 * each start. Nodes that share their subscription have another at each start.
 */
function clientOf(
  broker: FullNodeOptions["broker"],
  did: string,
  data: string,
): { clientId: string; shareGroup?: string } {
  const shareGroup = "use" in broker ? broker.shareGroup : undefined;
  if (shareGroup !== undefined)
    return { clientId: `${nodeClientIdStart}${randomBytes(6).toString("hex")}`, shareGroup };
  const place = createHash("sha256")
    .update(`${hostname()}\0${realpathSync(data)}`)
    .digest("hex");
  return { clientId: `${nodeClientIdStart}${did.slice(-6)}${place.slice(0, 8)}` };
}

/** An address to connect to where one to listen on was given. */
function reachable(host: string): string {
  return host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
}

function isIpv6(host: string): boolean {
  return host.includes(":");
}
