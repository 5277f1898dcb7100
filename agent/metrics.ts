/** The agent's metrics in Prometheus' text format, for whoever asks for them in hub.yaml. Labels: meters of the configuration, kinds of alarm. */
import { Counter, Gauge, Registry } from "prom-client";
import { version } from "../platform/version.ts";
import type { WalletHello } from "../protocol/wallet-hello.ts";
import type { AgentStatus } from "./agent-status.ts";
import type { AgentWatch } from "./alarms.ts";

export interface AgentMetricsSources {
  readonly status: () => AgentStatus;
  readonly hello: () => WalletHello | undefined;
  readonly watch: AgentWatch;
}

type Samples = readonly (readonly [labels: Readonly<Record<string, string>>, value: number])[];

export class AgentMetrics {
  readonly #registry = new Registry();

  constructor({ status, hello, watch }: AgentMetricsSources) {
    const one = (value: number): Samples => [[{}, value]];
    const meters = (value: (meter: AgentStatus["meters"][number]) => number): Samples =>
      status().meters.map((meter) => [{ meter: meter.name }, value(meter)]);
    this.#gauge("ecp_build_info", "The version that runs", ["version"], () => [[{ version }, 1]]);
    this.#gauge("ecp_records_sealed", "Last sequence of the running epoch", [], () => one(status().sealed));
    this.#gauge("ecp_records_acknowledged", "All up to this sequence are acknowledged", [], () =>
      one(status().acknowledged),
    );
    this.#gauge("ecp_records_waiting", "Records sealed and not acknowledged", [], () => one(status().waiting));
    this.#gauge("ecp_backlog_records", "Records that no full node has named in a receipt", [], () =>
      one(status().backlog.records),
    );
    this.#gauge("ecp_backlog_bytes", "Their size, about", [], () => one(status().backlog.bytes));
    this.#gauge("ecp_wallet_connected", "1: the wallet answers", [], () =>
      one(status().wallet === "connected" ? 1 : 0),
    );
    this.#gauge("ecp_uplink_connected", "1: the uplink has its broker", [], () =>
      one(status().uplink?.connected ? 1 : 0),
    );
    this.#loraMetrics(() => status().lora);
    this.#gauge("ecp_journal_segments", "Segments of the journal", [], () => one(hello()?.segments ?? 0));
    this.#gauge("ecp_journal_segments_in_use", "Segments that hold what is not acknowledged", [], () =>
      one(hello()?.segmentsInUse ?? 0),
    );
    this.#gauge("ecp_clock_synchronised", "1: the wallet sees a synchronised clock", [], () =>
      one(hello()?.clockState === 0 ? 1 : 0),
    );
    this.#gauge("ecp_alarms", "Alarms that stand, by kind", ["kind"], () =>
      Object.entries(watch.counts).map(([kind, count]) => [{ kind }, count]),
    );
    this.#gauge("ecp_meter_good", "1: the last reading of the meter was good", ["meter"], () =>
      meters(({ lastStatus }) => (lastStatus === "G" ? 1 : 0)),
    );
    this.#gauge("ecp_meter_unsealed_rows", "Rows read and not sealed yet", ["meter"], () =>
      meters((meter) => meter.unsealedRows),
    );
    this.#counter("ecp_meter_missed_slots_total", "Slots that passed unread", () =>
      meters((meter) => meter.missedSlots),
    );
    this.#counter("ecp_meter_late_readings_total", "Good readings that ended late", () =>
      meters((meter) => meter.lateReadings),
    );
    this.#counter("ecp_meter_lost_rows_total", "Rows read that could not be sealed", () =>
      meters((meter) => meter.lostRows),
    );
    // Not the client's own default metrics: their monitor of the event loop wakes a small hub a hundred times a second.
    this.#gauge("process_resident_memory_bytes", "Memory of the agent's process", [], () =>
      one(process.memoryUsage.rss()),
    );
    const cpu = () => process.cpuUsage();
    new Counter({
      name: "process_cpu_seconds_total",
      help: "CPU time of the agent's process",
      registers: [this.#registry],
      collect() {
        this.reset();
        this.inc((cpu().user + cpu().system) / 1e6);
      },
    });
  }

  /** No series where LoRaWAN is not configured. */
  #loraMetrics(read: () => AgentStatus["lora"]): void {
    const one = (value: (lora: NonNullable<AgentStatus["lora"]>) => number | undefined) => (): Samples => {
      const lora = read();
      const found = lora && value(lora);
      return found === undefined ? [] : [[{}, found]];
    };
    this.#gauge(
      "ecp_lora_joined",
      "1: the modem has joined",
      [],
      one(({ isJoined }) => (isJoined ? 1 : 0)),
    );
    this.#gauge(
      "ecp_lora_data_rate",
      "Data rate of the modem",
      [],
      one(({ dataRate }) => dataRate),
    );
    this.#gauge(
      "ecp_lora_batch_seconds",
      "Seconds that a batch covers",
      [],
      one(({ batchS }) => batchS),
    );
    this.#gauge(
      "ecp_lora_sessions",
      "Records under way in fragments",
      [],
      one(({ sessions }) => sessions.length),
    );
    this.#gauge(
      "ecp_lora_awaiting_receipt",
      "Records sent and not in a receipt",
      [],
      one((lora) => lora.awaitingReceipt),
    );
    this.#gauge(
      "ecp_lora_airtime_day_seconds",
      "Airtime of the last 24 hours",
      [],
      one((lora) => lora.airtimeDayMs / 1e3),
    );
    this.#gauge("ecp_lora_airtime_left_seconds", "Airtime that is left", ["limit"], () => {
      const { dutyCycle, fairUse } = read() ?? {};
      const left = (limit: string, allowance = dutyCycle): Samples =>
        allowance ? [[{ limit }, Math.max(0, allowance.limitMs - allowance.spentMs) / 1e3]] : [];
      return [...left("law"), ...(fairUse ? left("network", fairUse) : [])];
    });
    this.#counter(
      "ecp_lora_frames_total",
      "Frames sent",
      one(({ framesSent }) => framesSent),
      [],
    );
    this.#counter(
      "ecp_lora_downlinks_total",
      "Downlinks of any kind",
      one(({ downlinks }) => downlinks),
      [],
    );
  }

  #gauge(name: string, help: string, labelNames: string[], read: () => Samples): void {
    new Gauge({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const [labels, value] of read()) this.set(labels, value);
      },
    });
  }

  #counter(name: string, help: string, read: () => Samples, labelNames: string[] = ["meter"]): void {
    new Counter({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const [labels, value] of read()) this.inc(labels, value);
      },
    });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }
}
