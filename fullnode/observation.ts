/** Everything that watches a running full node: alarms, metrics over HTTP, the socket that `ecp-node alarms` asks. */
import { join } from "node:path";
import { logAlarms } from "../platform/alarm-log.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { type MetricsServer, serveMetrics } from "../platform/metrics-server.ts";
import { serveStatus } from "../platform/status-socket.ts";
import { lookEveryMs, type NodeAlarm, NodeWatch } from "./alarms.ts";
import { queuedRecordsMax } from "./device-queues.ts";
import type { NodeHome, NodeHomeOptions } from "./home-values.ts";
import type { LorawanStatus } from "./lorawan-service.ts";
import { addressError } from "./node-error.ts";
import type { StoredEvent } from "./record-event.ts";
import type { RecordPath } from "./record-path.ts";
import type { Store } from "./store.ts";

/** Devices whose values a home may be shown. */
export const homeDevicesMax = 100;
/** A device more costs two time series. */
export const metricsDevicesMax = 10_000;
const socketName = "node.sock";
const statusTimeoutMs = 5_000;

export interface ObservationOptions {
  /** Where metrics are served, and how many devices have time series of their own. */
  readonly metrics?: { readonly host: string; readonly port: number; readonly devices: number };
  /** Allowed silence for every device, instead of what is learned. */
  readonly silentAfterMs?: number;
  /** Plain values of chosen devices for a home. */
  readonly home?: NodeHomeOptions;
}

export interface ObservationParts extends ObservationOptions {
  readonly data: string;
  /** Tells this node from others, in at most 12 letters and digits. */
  readonly node: string;
  readonly store: Store;
  readonly path: Pick<RecordPath, "counts">;
  /** Where the node takes frames of LoRaWAN. */
  readonly lorawanStatus?: () => LorawanStatus | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

/** What a running node says at its socket. */
export interface NodeStatus {
  readonly node: string;
  readonly problems: readonly string[];
  readonly alarms: readonly NodeAlarm[];
  readonly devices: number;
  readonly quarantined: number;
  readonly counts: RecordPath["counts"];
  readonly lorawan?: LorawanStatus;
}

export interface Observation {
  /** http://host:port, where metrics are served. */
  readonly metricsUrl: string | undefined;
  connected(isConnected: boolean): void;
  stored(event: StoredEvent): void;
  stop(): Promise<void>;
}

/** Where a node that runs on a data folder answers. */
export function nodeSocket(data: string): string {
  return join(data, socketName);
}

/** Throws NodeError where the metrics' address cannot be had. */
export async function startObservation(parts: ObservationParts): Promise<Observation> {
  const { data, store, path, clock, log, metrics } = parts;
  const watch = new NodeWatch({
    store,
    clock,
    ...(parts.silentAfterMs !== undefined && { silentAfterMs: parts.silentAfterMs }),
    queueShare: () => path.counts.queued / queuedRecordsMax,
    onChanges: (changes) => logAlarms(log, changes),
  });
  const problems = () => [...watch.problems, ...lorawanProblems(parts)];
  const server = metrics && (await serve(metrics, parts, watch, problems));
  const status = (): NodeStatus => ({
    node: store.nodeName,
    problems: problems(),
    alarms: watch.raised,
    devices: watch.devices.length,
    quarantined: watch.quarantined,
    counts: path.counts,
    ...lorawanOf(parts),
  });
  // A convenience: a node does its work without it.
  const socket = await serveStatus(nodeSocket(data), status, statusTimeoutMs, "node").catch((error: Error) => {
    log.warn("`ecp-node alarms` will get no answer", {
      got: error.message,
      todo: "use a data folder with a shorter path",
    });
    return undefined;
  });
  const home = parts.home && (await startHome(parts, parts.home));
  const timer = setInterval(() => void watch.look(), lookEveryMs).unref();
  await watch.look();
  return {
    metricsUrl:
      server && metrics && `http://${metrics.host.includes(":") ? `[${metrics.host}]` : metrics.host}:${server.port}`,
    connected: (isConnected) => {
      watch.connected(isConnected);
      void watch.look();
    },
    stored: (event) => {
      watch.stored(event.device, event.clock);
      home?.stored(event);
    },
    stop: async () => {
      clearInterval(timer);
      socket?.close();
      await home?.stop();
      await server?.close();
      await watch.settled();
    },
  };
}

function lorawanOf({ lorawanStatus }: Pick<ObservationParts, "lorawanStatus">): Pick<NodeStatus, "lorawan"> {
  const status = lorawanStatus?.();
  return status ? { lorawan: status } : {};
}

/** A node that stands by has none: another one takes the frames. */
function lorawanProblems({ lorawanStatus }: Pick<ObservationParts, "lorawanStatus">): string[] {
  return lorawanStatus?.()?.state === "connecting" ? ["no connection to the LoRaWAN network server's broker"] : [];
}

async function serve(
  { host, port, devices }: NonNullable<ObservationOptions["metrics"]>,
  { path, lorawanStatus }: Pick<ObservationParts, "path" | "lorawanStatus">,
  watch: NodeWatch,
  problems: () => readonly string[],
): Promise<MetricsServer> {
  // Loaded where it is asked for: it takes memory.
  const { NodeMetrics } = await import("./metrics.ts");
  const node = new NodeMetrics({
    counts: () => path.counts,
    watch,
    devices,
    ...(lorawanStatus && { lorawan: lorawanStatus }),
  });
  try {
    return await serveMetrics({
      host,
      port,
      contentType: node.contentType,
      metrics: () => node.text(),
      problems,
    });
  } catch (error) {
    throw addressError(error, host, port, "metrics");
  }
}

async function startHome({ store, log, node }: ObservationParts, home: NodeHomeOptions): Promise<NodeHome> {
  const { NodeHome } = await import("./home-values.ts");
  return new NodeHome({ ...home, store, log, nodeName: node });
}
