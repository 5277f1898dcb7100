/** ecp agent: polls, has readings sealed, forwards. Alone (under systemd), or beside the wallet by `ecp run`. */
import { Agent } from "../agent/agent.ts";
import type { AgentEvent } from "../agent/event.ts";
import type { LoraCondition } from "../agent/lora-status.ts";
import { AgentObservation } from "../agent/observation.ts";
import { PolicyMismatch } from "../agent/policy-check.ts";
import { systemClock } from "../platform/clock.ts";
import { createLog, type Log } from "../platform/log.ts";
import { serveStatus } from "../platform/status-socket.ts";
import { type Command, CommandError, exit, parseCommand } from "./command.ts";
import { readHubFile } from "./hub-configuration.ts";
import type { loraCarrierOf } from "./hub-lora-carrier.ts";
import { configOption, jsonOption } from "./hub-options.ts";
import { loraLogLine } from "./lora-log-line.ts";

export const hubAgent: Command = {
  summary: "poll the meters, have the wallet seal, forward (the wallet runs beside it)",
  usage: `Usage: ecp agent [--config hub.yaml] [--json] [--no-polling] [--exit-with-parent]

Waits for the wallet, polls until SIGTERM or SIGINT, and seals what it has read before it ends. SIGUSR2 stops the polling
and lets the forwarding go on; --no-polling begins that way. --json prints what happens, one JSON object a line. Faults are logged to stderr.`,

  async run(args) {
    const options = {
      ...configOption,
      ...jsonOption,
      "no-polling": { type: "boolean", default: false },
      "exit-with-parent": { type: "boolean", default: false },
    } as const;
    const { values } = parseCommand("ecp agent", args, options, []);
    const { configuration, profileOf } = readHubFile(values.config);
    const ended = new Promise<void>((resolve) => {
      process.once("SIGTERM", resolve);
      process.once("SIGINT", resolve);
      if (values["exit-with-parent"]) process.stdin.resume().once("end", resolve).once("close", resolve);
    });
    const log = createLog("agent");
    const reportLog = logEvents(log, systemClock.monotonicMs);
    const observation = new AgentObservation({ configuration, clock: systemClock, log });
    const emit = (event: AgentEvent): void => {
      if (values.json) process.stdout.write(`${JSON.stringify(event)}\n`);
      reportLog(event);
      observation.take(event);
    };
    const polling = !values["no-polling"];
    const lora = configuration.lora && (await loraCarrierFor(configuration, profileOf));
    const agent = new Agent({ configuration, profileOf, clock: systemClock, emit, polling, ...(lora && { lora }) });
    process.on("SIGUSR2", () => {
      agent.stopPolling().then(
        () => emit({ event: "stopped-polling" }),
        (error: unknown) => {
          throw error;
        },
      );
    });
    process.stdout.on("error", () => process.exit(exit.failed)); // whoever listened has gone
    const status = await serveStatus(configuration.agentSocket, () => observation.status(agent.status())).catch(
      (error: Error) => {
        throw noStatusSocket(configuration.agentSocket, error);
      },
    );
    try {
      await observation.start(agent).catch((error: Error) => {
        throw noMetrics(values.config, error);
      });
      log.info("started", { config: values.config, meters: configuration.meters.length });
      const started = agent.start().then(() => {
        if (!polling) emit({ event: "stopped-polling" });
      });
      await Promise.race([started, ended]);
      await ended;
    } catch (error) {
      throw error instanceof PolicyMismatch ? notApplied(values.config, error) : error;
    } finally {
      await agent.stop();
      await observation.stop();
      status.close();
      process.stdin.destroy();
    }
    return exit.ok;
  },
};

/** What LoRaWAN needs is loaded only by those that have it: a hub has little memory. */
async function loraCarrierFor(...hub: Parameters<typeof loraCarrierOf>): ReturnType<typeof loraCarrierOf> {
  return (await import("./hub-lora-carrier.ts")).loraCarrierOf(...hub);
}

function noStatusSocket(path: string, error: Error): CommandError {
  return new CommandError(exit.unavailable, {
    expected: "a socket for the status",
    got: error.message,
    where: path,
    todo: "stop the other agent, or name another 'agent: socket:' in hub.yaml",
  });
}

function noMetrics(config: string, error: Error): CommandError {
  return new CommandError(exit.unavailable, {
    expected: "an address that the metrics can be served at",
    got: error.message,
    where: config,
    todo: "name another port in 'metrics: listen:' of hub.yaml, or take it out",
  });
}

function notApplied(config: string, error: PolicyMismatch): CommandError {
  return new CommandError(exit.badConfiguration, {
    expected: "a wallet that seals for the meters of this configuration",
    got: error.message,
    where: config,
    todo: `ecp config apply --config ${config}, then restart the wallet`,
  });
}

/** Lost rows are told at once, and then so often. */
const lostLogEveryMs = 60_000;

/** States in which nothing goes over LoRaWAN, and somebody may have to do something. */
const loraWorries: ReadonlySet<LoraCondition> = new Set(["modem-away", "not-joined", "fair-use", "state-unwritable"]);

/** What is worth a line in a log that is kept: changes, not each reading. */
function logEvents(log: Log, nowMs: () => number): (event: AgentEvent) => void {
  const lost = new Map<number, { rows: number; saidMs: number }>();
  const last = new Map<string, string>();
  const changed = (key: string, value: string): boolean => {
    const other = last.get(key) !== value;
    last.set(key, value);
    return other;
  };
  return (event) => {
    switch (event.event) {
      case "wallet":
        if (changed("wallet", event.state + (event.detail ?? "")))
          log[event.state === "connected" ? "info" : "warn"](`wallet ${event.state}`, { detail: event.detail });
        break;
      case "uplink":
        if (changed("uplink", event.state + (event.detail ?? "")))
          log[event.state === "connected" ? "info" : "warn"](`uplink ${event.state}`, {
            address: event.address,
            detail: event.detail,
          });
        break;
      case "reading":
        if (!changed(`meter ${event.name}`, event.status)) break;
        if (event.status === "G") log.info("meter answers", { meter: event.name });
        else log.warn("meter cannot be read", { meter: event.name, status: event.status, detail: event.detail });
        break;
      case "lora-state":
        if (changed("lora", event.condition) && loraWorries.has(event.condition))
          log.warn(`lora ${event.condition}`, { detail: event.detail });
        break;
      case "lora": {
        const { level, text, fields } = loraLogLine(event.lora);
        if (level) log[level](text, fields);
        break;
      }
      case "refused":
        if (changed("refused", event.reason))
          log.warn("the wallet refused", { reason: event.reason, detail: event.detail });
        break;
      case "lost": {
        const { meter, detail } = event;
        const before = lost.get(meter);
        const rows = (before?.rows ?? 0) + event.rows;
        const say = before === undefined || nowMs() - before.saidMs >= lostLogEveryMs;
        lost.set(meter, { rows, saidMs: say ? nowMs() : before.saidMs });
        if (say) log.error("readings lost before they were sealed", { meter, rowsSinceStart: rows, detail });
        break;
      }
      default:
        break;
    }
  };
}
