/** Everything that watches a running agent: alarms, metrics over HTTP, values for the home. What is not asked for is not loaded. */
import { logAlarms } from "../platform/alarm-log.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { type MetricsServer, serveMetrics } from "../platform/metrics-server.ts";
import type { Agent } from "./agent.ts";
import type { AgentStatus } from "./agent-status.ts";
import { AgentWatch, agentLookEveryMs } from "./alarms.ts";
import type { HubConfiguration } from "./configuration.ts";
import type { AgentEvent } from "./event.ts";
import type { HomeValues } from "./home-values.ts";

export interface AgentObservationParts {
  readonly configuration: Pick<HubConfiguration, "home" | "metrics" | "meters">;
  readonly clock: Clock;
  readonly log: Log;
}

export class AgentObservation {
  readonly #parts: AgentObservationParts;
  readonly #watch: AgentWatch;
  #agent: Pick<Agent, "status" | "hello"> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #server: MetricsServer | undefined;
  #home: HomeValues | undefined;

  constructor(parts: AgentObservationParts) {
    this.#parts = parts;
    this.#watch = new AgentWatch(parts.clock);
  }

  /** Begins to watch; rejects with the system's error where the metrics' address cannot be had. */
  async start(agent: Pick<Agent, "status" | "hello">): Promise<void> {
    const { configuration, clock, log } = this.#parts;
    const { home, metrics, meters } = configuration;
    this.#agent = agent;
    const look = () => logAlarms(log, this.#watch.look(agent.status(), agent.hello));
    this.#timer = setInterval(look, agentLookEveryMs).unref();
    if (home) {
      const { HomeValues } = await import("./home-values.ts");
      this.#home = new HomeValues({ home, meters, log, nowMs: clock.monotonicMs });
    }
    if (metrics) {
      const { AgentMetrics } = await import("./metrics.ts");
      const text = new AgentMetrics({ status: () => agent.status(), hello: () => agent.hello, watch: this.#watch });
      this.#server = await serveMetrics({
        ...metrics,
        contentType: text.contentType,
        metrics: () => text.text(),
        problems: () => problemsOf(agent.status()),
      });
      log.info("metrics", { address: `http://${metrics.host}:${this.#server.port}/metrics` });
    }
  }

  take(event: AgentEvent): void {
    if (event.event === "reading") this.#home?.take(event, this.#agent?.status().device);
  }

  /** A status with the alarms that stand. */
  status(status: AgentStatus): AgentStatus {
    return { ...status, alarms: this.#watch.raised };
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all([this.#home?.stop(), this.#server?.close()]);
  }
}

function problemsOf({ wallet, uplink, lora }: AgentStatus): string[] {
  return [
    ...(wallet === "disconnected" ? ["the wallet does not answer"] : []),
    ...(uplink && !uplink.connected ? [`no connection to ${uplink.address}`] : []),
    ...(lora && !lora.isJoined ? ["LoRaWAN: not joined"] : []),
  ];
}
