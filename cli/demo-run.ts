/** The demo: simulated meter → agent → wallet → MQTT → full node → receipt, each a process of its own, watched. */
import type { AgentEvent } from "../agent/event.ts";
import { WalletClient } from "../agent/wallet-client.ts";
import { Part } from "../platform/supervisor.ts";
import { type Command, exit, parseCommand, usageError } from "./command.ts";
import { parseRadio } from "./demo-radio-options.ts";
import { cleanUpDemo, type DemoLora, type DemoRadio, type DemoWorld, setUpDemo } from "./demo-set-up.ts";
import { type DemoSummary, DemoTally, type RadioFrame } from "./demo-tally.ts";
import { DemoView, type PartView } from "./demo-view.ts";
import { programCommand } from "./program-path.ts";

/** How long the end waits for the last receipts: over LoRaWAN several frames, each with its receive windows. */
const lastReceiptsMs = { mqtt: 15_000, lora: 120_000 } as const;
const askWalletMs = 200;
const walletStartMs = 60_000;

export const demoRun: Command = {
  summary: "run all of it here and watch a reading become a signed, acknowledged record",
  usage: `Usage: ecp-demo [--uplink mqtt|lora] [--for SECONDS] [--interval SECONDS] [--data DIR] [--restart-after SECONDS]
                [--json]
       ecp-demo --uplink lora [--family FAMILY] [--server chirpstack|tts] [--dr N] [--loss SHARE] [--fault FAULT]… …
       ecp-demo simulate …            a simulated meter alone (ecp-demo help simulate)
       ecp-demo simulate lora …       a simulated LoRaWAN alone (ecp-demo help simulate lora)

A simulated Eastron SDM630 on a pty, the agent on its other end, the wallet, and a full node with its own broker, each in
a process of its own; one that dies is started again after --restart-after (5 s). Kill any of them and watch.

--uplink    mqtt (the default), or lora: a simulated modem on a pty, radio, gateway and network server; rows of 10 s, signed
            every 30 s; frames, airtime and budget are shown
--family, --server, --dr, --loss, --fault   of that radio: ecp-demo help simulate lora. The family is lora-e5 unless given, since
            it leaves the duty cycle to its host: one sees the agent keep it. At slow data rates its budget has to be waited for
--for       end by itself: stop polling after so many seconds, then wait for the last receipts, up to
            ${lastReceiptsMs.mqtt / 1_000} s (MQTT) or ${lastReceiptsMs.lora / 1_000} s (LoRaWAN)
--interval  seconds between readings (1)
--data      keep everything in DIR, and go on from there next time; else in a temporary folder that goes at the end
--json      one JSON object a line for each event, and a summary as the last line

In the summary: readings taken, records sealed (the wallet's own events among them), acknowledged by a receipt that the
wallet verified, missing = sealed - acknowledged. Exit status 0 only if something was read and nothing is missing.`,

  async run(args) {
    const { values } = parseCommand(
      "ecp-demo",
      args,
      {
        uplink: { type: "string", default: "mqtt" },
        family: { type: "string" },
        server: { type: "string" },
        dr: { type: "string" },
        loss: { type: "string" },
        fault: { type: "string", multiple: true },
        for: { type: "string" },
        interval: { type: "string", default: "1" },
        data: { type: "string" },
        "restart-after": { type: "string", default: "5" },
        json: { type: "boolean", default: false },
      },
      [],
    );
    const forS = values.for === undefined ? undefined : seconds("for", values.for, 1, 31_536_000);
    const intervalS = seconds("interval", values.interval, 1, 86_400);
    if (!Number.isInteger(intervalS) || 86_400 % intervalS !== 0)
      throw usageError("ecp-demo", `--interval ${values.interval}: whole seconds that divide a day were expected`);
    const { uplink } = values;
    if (uplink !== "mqtt" && uplink !== "lora")
      throw usageError("ecp-demo", `--uplink ${uplink}: mqtt or lora was expected`);
    const radio = uplink === "lora" ? radioOf(values) : undefined;
    const alone = (["family", "server", "dr", "loss", "fault"] as const).find((flag) => values[flag] !== undefined);
    if (!radio && alone) throw usageError("ecp-demo", `--${alone} without --uplink lora`);
    if (radio && 10 % intervalS !== 0)
      throw usageError("ecp-demo", `--interval ${values.interval}: with --uplink lora 1, 2, 5 or 10 was expected`);
    const restartAfterMs = seconds("restart-after", values["restart-after"], 0, 3_600) * 1_000;
    const interrupted = new AbortController();
    process.once("SIGINT", () => interrupted.abort());
    process.once("SIGTERM", () => interrupted.abort());
    let world: DemoWorld;
    try {
      world = await setUpDemo(values.data, intervalS, radio, interrupted.signal);
    } catch (error) {
      if (!interrupted.signal.aborted) throw error;
      return conclude(new DemoTally().summary(), values.json);
    }
    try {
      const summary = await new Demo(world, restartAfterMs, values.json).run(forS, interrupted.signal);
      return conclude(summary, values.json);
    } finally {
      cleanUpDemo(world);
    }
  },
};

function seconds(flag: string, text: string, min: number, max: number): number {
  const number = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && number >= min && number <= max) return number;
  throw usageError("ecp-demo", `--${flag} ${text}: seconds from ${min} to ${max} were expected`);
}

/** The last word, and the exit status. */
function conclude(summary: DemoSummary, json: boolean): number {
  if (json) process.stdout.write(`${JSON.stringify({ summary })}\n`);
  else process.stdout.write(DemoView.ending(summary));
  return summary.readings > 0 && summary.missing === 0 ? exit.ok : exit.failed;
}

class Demo {
  readonly #world: DemoWorld;
  readonly #restartAfterMs: number;
  readonly #json: boolean;
  readonly #tally = new DemoTally();
  readonly #parts: { part: Part; view: PartView }[] = [];
  readonly #view: DemoView;
  readonly #wallet: WalletClient;
  #polling = true;
  /** The agent has said that its last reading is sealed. */
  #stoppedPolling = false;

  constructor(world: DemoWorld, restartAfterMs: number, json: boolean) {
    this.#world = world;
    this.#restartAfterMs = restartAfterMs;
    this.#json = json;
    this.#wallet = new WalletClient(world.walletSocket);
    this.#view = new DemoView(this.#tally, () => this.#parts.map(({ view }) => view));
  }

  async run(forS: number | undefined, signal: AbortSignal): Promise<DemoSummary> {
    const interrupted = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      signal.addEventListener("abort", () => resolve());
    });
    process.stdout.on("error", () => process.exit(exit.failed)); // whoever watched has gone
    try {
      await Promise.race([this.#startParts(signal), interrupted]);
      if (!this.#json) this.#view.start();
      const time = new Promise<void>((resolve) => {
        if (forS !== undefined) setTimeout(resolve, forS * 1_000).unref();
      });
      await Promise.race([interrupted, time]);
      await this.#lastReceipts();
      if (!this.#json) this.#view.stop();
    } finally {
      // Whatever happened, no part outlives the demo.
      for (const { part } of [...this.#parts].reverse()) await part.stop();
      this.#wallet.close();
    }
    return this.#tally.summary();
  }

  async #startParts(signal: AbortSignal): Promise<void> {
    const { meterLink, nodeFolder, brokerPort, walletFolder, walletSocket, passphraseFile, config, lora } = this.#world;
    this.#add("simulator", meterLink, "ecp-demo", () => ["simulate", "--link", meterLink, "--json"]);
    if (lora) this.#add("radio", lora.modemLink, "ecp-demo", () => ["simulate", "lora", ...radioArguments(lora)]);
    const listen = `127.0.0.1:${brokerPort}`;
    this.#add("node", `mqtt://${listen}`, "ecp-node", () => [
      ...["run", "--data", nodeFolder, "--listen", listen, "--json"],
      ...(lora ? nodeArguments(lora) : []),
    ]);
    const walletPaths = ["--data", walletFolder, "--socket", walletSocket, "--passphrase-file", passphraseFile];
    this.#add("wallet", walletSocket, "ecp-wallet", () => ["run", ...walletPaths]);
    const hello = await this.#wallet.connected(AbortSignal.any([signal, AbortSignal.timeout(walletStartMs)]));
    if (signal.aborted) return;
    // The event with which the wallet has just started is the first record of this run.
    this.#tally.begin(hello.nextSequence - 2);
    this.#add("agent", config, "ecp", () => [
      ...["agent", "--config", config, "--json"],
      ...(this.#polling ? [] : ["--no-polling"]),
    ]);
  }

  #add(name: string, address: string, program: Parameters<typeof programCommand>[0], args: () => string[]): void {
    const { command, arguments: first } = programCommand(program);
    const view: PartView = { name, address, pid: undefined, starts: 0 };
    const part = new Part(
      {
        name,
        command,
        arguments: () => [...first, ...args(), "--exit-with-parent"],
        ownGroup: true,
        onLine: (line) => this.#line(name, line),
        onErrorLine: (line) => this.#errorLine(name, line),
        onStart: (pid) => {
          Object.assign(view, { pid, starts: view.starts + 1 });
          this.#print({ event: "started", part: name, pid, address });
        },
        onExit: (code, signal) => {
          view.pid = undefined;
          this.#print({ event: "ended", part: name, code, signal, restartAfterMs: this.#restartAfterMs });
        },
      },
      this.#restartAfterMs,
    );
    this.#parts.push({ part, view });
    part.start();
  }

  #line(name: string, line: string): void {
    let event: { event: string; count?: number };
    try {
      event = JSON.parse(line) as { event: string };
    } catch {
      return; // a part that was killed in the middle of a line
    }
    if (name === "agent" && event.event === "stopped-polling") this.#stoppedPolling = true;
    if (name === "agent" && !this.#tally.take(event as AgentEvent)) return;
    if (name === "radio" && event.event === "frame") this.#tally.frame(event as unknown as RadioFrame);
    if (name === "node" && event.event === "refused") this.#tally.nodeRefused(event.count ?? 1);
    if (event.event === "started") event.event = "ready"; // that the process runs was said when it was started
    this.#print({ part: name, ...event });
  }

  #errorLine(name: string, line: string): void {
    if (this.#json) this.#print({ event: "log", part: name, line });
    else this.#view.log(name, line);
  }

  #print(event: Record<string, unknown>): void {
    if (this.#json) process.stdout.write(`${JSON.stringify(event)}\n`);
  }

  /** Stops the polling, and waits until the wallet says that all it sealed is released, or time is up. */
  async #lastReceipts(): Promise<void> {
    this.#polling = false;
    const agent = this.#parts.find(({ part }) => part.name === "agent")?.part;
    if (!agent) return; // ended before there was one: nothing was read
    if (agent.pid !== undefined) process.kill(agent.pid, "SIGUSR2");
    const deadline = AbortSignal.timeout(lastReceiptsMs[this.#world.lora ? "lora" : "mqtt"]);
    while (!deadline.aborted) {
      try {
        const hello = await this.#wallet.connected(deadline);
        this.#tally.wallet(hello.nextSequence - 1, hello.through);
        const polled = this.#stoppedPolling || agent.pid === undefined;
        if (polled && hello.through === hello.nextSequence - 1) return;
      } catch (error) {
        if ((error as Error).name === "TimeoutError") return;
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, askWalletMs));
    }
  }
}

/** What is wrong in the radio's own arguments is said at once, and not by a part that is started again and again. */
function radioOf(values: {
  readonly family?: string | undefined;
  readonly server?: string | undefined;
  readonly dr?: string | undefined;
  readonly loss?: string | undefined;
  readonly fault?: string[] | undefined;
}): DemoRadio {
  const { family = "lora-e5", server = "chirpstack", dr, loss, fault = [] } = values;
  const given = [
    ...["--family", family, "--server", server],
    ...(dr === undefined ? [] : ["--dr", dr]),
    ...(loss === undefined ? [] : ["--loss", loss]),
    ...fault.flatMap((one) => ["--fault", one]),
  ];
  const radio = parseRadio("ecp-demo", given);
  return { family: radio.family, server: radio.server, arguments: given };
}

function radioArguments(lora: DemoLora): string[] {
  const server = ["--listen", `127.0.0.1:${lora.serverPort}`, "--dev-eui", lora.devEui];
  // Two gateways show that copies are taken once; where frames are to be lost, a second would make up for it.
  const gateways = lora.arguments.includes("--loss") ? "1" : "2";
  return ["--link", lora.modemLink, ...lora.arguments, ...server, "--gateways", gateways, "--json"];
}

function nodeArguments({ server, serverPort, applicationId }: DemoLora): string[] {
  const broker = ["--lorawan-broker", `mqtt://127.0.0.1:${serverPort}`];
  return ["--lorawan", server, ...broker, "--lorawan-application", applicationId];
}
