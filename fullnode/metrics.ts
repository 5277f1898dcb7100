/**
 * The full node's metrics in Prometheus' text format. What is counted elsewhere is read when it is asked for; labels have a closed
 * list of values, but for devices, of which as many are named as the operator asked for.
 */
import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";
import { version } from "../platform/version.ts";
import type { NodeWatch } from "./alarms.ts";
import type { LorawanStatus } from "./lorawan-service.ts";
import { type RecordCounts, receiptSecondsBounds } from "./record-path.ts";

export interface MetricsSources {
  readonly counts: () => RecordCounts;
  readonly watch: NodeWatch;
  /** Given: what came over LoRaWAN is counted too. */
  readonly lorawan?: () => LorawanStatus | undefined;
  /** How many devices have time series of their own; the first that were enrolled. */
  readonly devices: number;
}

export class NodeMetrics {
  readonly #registry = new Registry();
  readonly #counts: () => RecordCounts;

  constructor(sources: MetricsSources) {
    const { counts, watch } = sources;
    this.#counts = counts;
    this.#counter("ecp_records_stored_total", "Records stored", () => counts().stored);
    this.#counter("ecp_records_duplicate_total", "Records that were stored already", () => counts().duplicates);
    this.#counter(
      "ecp_records_verified_total",
      "Records whose form, device and signature held",
      () => counts().verified,
    );
    this.#counter("ecp_batches_total", "Batches committed", () => counts().batches);
    this.#gauge("ecp_intake_queued_messages", "Messages that wait to be examined", () => counts().queued);
    this.#counter("ecp_receipts_total", "Receipts given", () => counts().receipts);
    this.#labelled("ecp_messages_refused_total", "Messages not booked, by reason", "reason", () => counts().refused);
    this.#gauge("ecp_devices", "Devices enrolled", () => watch.devices.length);
    this.#gauge("ecp_quarantined_records", "Records of devices that are not enrolled", () => watch.quarantined);
    this.#gauge("ecp_healthy", "1: broker and store answer", () => (watch.problems.length === 0 ? 1 : 0));
    this.#gaugeOf("ecp_alarms", "Alarms that stand, by kind", "kind", () => Object.entries(watch.alarmCounts));
    this.#gaugeOf("ecp_build_info", "The version that runs", "version", () => [[version, 1]]);
    if (sources.devices > 0) this.#ofDevices(sources);
    if (sources.lorawan) this.#ofLorawan(sources.lorawan);
    collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: 50 });
  }

  /** Counted from when this node got the lease; 0 while another one has it. */
  #ofLorawan(status: () => LorawanStatus | undefined): void {
    const counts = () => status()?.counts;
    this.#gauge("ecp_lorawan_lease", "1: this node takes the frames, no other one does", () => (counts() ? 1 : 0));
    this.#gauge("ecp_lorawan_connected", "1: connected to the network server's broker", () =>
      status()?.state === "connected" ? 1 : 0,
    );
    this.#gauge("ecp_lorawan_modems", "DevEUIs bound to devices", () => counts()?.modems ?? 0);
    this.#gauge(
      "ecp_lorawan_sessions",
      "Packets whose fragments have come in part, or whose answer is kept",
      () => counts()?.sessions ?? 0,
    );
    this.#labelled("ecp_lorawan_frames_total", "Uplinks taken, by what was in them", "content", () => ({
      ...(counts()?.frames ?? {}),
    }));
    this.#labelled(
      "ecp_lorawan_frames_refused_total",
      "Uplinks not taken, by reason",
      "reason",
      () => counts()?.refused ?? {},
    );
    this.#counter("ecp_lorawan_joins_total", "Devices that joined", () => counts()?.joins ?? 0);
    this.#counter("ecp_lorawan_packets_total", "Packets put together of fragments", () => counts()?.packets ?? 0);
    this.#counter("ecp_lorawan_receipts_total", "Receipts queued for devices", () => counts()?.receipts ?? 0);
    this.#counter("ecp_lorawan_answers_total", "SCHC answers queued for devices", () => counts()?.answers ?? 0);
    this.#labelled(
      "ecp_lorawan_downlinks_total",
      "Downlinks queued at the network server, and what it says of them",
      "state",
      () => ({
        ...(counts()?.downlinks ?? {}),
      }),
    );
  }

  #ofDevices({ watch, devices }: MetricsSources): void {
    const named = () => watch.devices.slice(0, devices).map((state) => ({ state, did: `did:key:${state.name}` }));
    this.#gaugeOf("ecp_device_last_record_timestamp_seconds", "When the last record of a device came", "device", () =>
      named().map(({ state, did }) => [did, state.lastReceivedMs / 1_000]),
    );
    this.#gaugeOf("ecp_device_evidence_records", "Records that contradict a device's chain", "device", () =>
      named().map(({ state, did }) => [did, state.evidence]),
    );
  }

  #counter(name: string, help: string, read: () => number): void {
    new Counter({
      name,
      help,
      registers: [this.#registry],
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  }

  #labelled(name: string, help: string, label: string, read: () => Readonly<Record<string, number>>): void {
    new Counter({
      name,
      help,
      labelNames: [label],
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const [value, count] of Object.entries(read())) this.inc({ [label]: value }, count);
      },
    });
  }

  #gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers: [this.#registry],
      collect() {
        this.set(read());
      },
    });
  }

  #gaugeOf(name: string, help: string, label: string, read: () => readonly (readonly [string, number])[]): void {
    new Gauge({
      name,
      help,
      labelNames: [label],
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const [value, number] of read()) this.set({ [label]: value }, number);
      },
    });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  async text(): Promise<string> {
    return `${await this.#registry.metrics()}\n${receiptHistogram(this.#counts().receiptSeconds)}`;
  }
}

/** The client's histograms take single values; these are counted already, as the format wants them: buckets that add up. */
function receiptHistogram({ counts, sum }: RecordCounts["receiptSeconds"]): string {
  const name = "ecp_receipt_seconds";
  const lines = [`# HELP ${name} From a record's arrival to its receipt on disk`, `# TYPE ${name} histogram`];
  let total = 0;
  for (const [place, count] of counts.entries()) {
    total += count;
    lines.push(`${name}_bucket{le="${receiptSecondsBounds[place] ?? "+Inf"}"} ${total}`);
  }
  return [...lines, `${name}_sum ${sum}`, `${name}_count ${total}`, ""].join("\n");
}
