/** ecp-node run: the full node in the foreground, with its own broker or with another one. */
import { type FullNodeOptions, type LorawanRunEvent, startFullNode } from "../fullnode/full-node.ts";
import type { LorawanState } from "../fullnode/lorawan-service.ts";
import { lorawanSentences } from "../fullnode/lorawan-uplink.ts";
import type { BrokerAddress, MqttVersion } from "../fullnode/mqtt-link.ts";
import { homeDevicesMax, metricsDevicesMax, type ObservationOptions } from "../fullnode/observation.ts";
import type { RefusedEvent, StoredEvent } from "../fullnode/record-event.ts";
import { verdictSentences } from "../fullnode/verdict.ts";
import { createLog } from "../platform/log.ts";

import { parseTopic, topicOf } from "../protocol/mqtt-topic.ts";
import { type Command, exit, parseCommand, usageError } from "./command.ts";

import { dataOption, requireData } from "./node-command.ts";
import { lorawanHelp, lorawanRunOptions, lorawanUsage, parseLorawan } from "./node-lorawan-options.ts";
import { readPassword } from "./password-file.ts";
import { localTime } from "./table.ts";

const summaryIntervalMs = 60_000;
const defaultListen = "127.0.0.1:1883";
const silentAfterMaxS = 31_536_000;
const defaultMqttPort = 1883;
/** MQTT 5 §4.8.2: no `/`, `+` or `#`. */
const shareGroupForm = /^[\w.-]{1,64}$/;

export const nodeRun: Command = {
  summary: "run the full node in the foreground",
  usage: `Usage: ecp-node run --data DIR [--listen HOST:PORT | --broker mqtt://HOST:PORT [--username U --password-file F] [--share GROUP]]
                    [--metrics HOST:PORT [--metrics-per-device N]] [--silent-after SECONDS]
                    [--home-broker mqtt://HOST:PORT --home-device DEVICE … [--home-username U --home-password-file F]]
                    ${lorawanUsage}
                    [--json] [--exit-with-parent]

With --listen (default ${defaultListen}) the node runs a broker of its own; port 0 takes any free one.
With --broker it uses another one (mosquitto …): the node must be able to read ecp/1/+/record and write ecp/1/+/receipt.
With --share several nodes on one store (ecp-node init --store) divide the records among themselves: the broker gives each record to
one node of GROUP. It needs shared subscriptions (mosquitto has them; the broker of the node's own has not).

--metrics           serves Prometheus' metrics at http://HOST:PORT/metrics, and /healthz; without HOST on 127.0.0.1. Nobody is asked
                    for a password there. --metrics-per-device N: time series for the first N devices too (at most ${metricsDevicesMax}).
--silent-after      seconds after which a device that sends nothing is an alarm; unless given, learned from each device.
--home-broker       publishes plain values of the devices named by --home-device (again for each; no others) on that broker, with Home
                    Assistant's discovery; over a connection of its own that accepts nothing. Without TLS: for the loopback or the LAN.
${lorawanHelp}
--json              one JSON object a line on stdout: started, connected, disconnected, stored, refused, stopped; with --lorawan also
                    lorawan (whether this node takes the frames) and frame-refused.
                    "stored" comes once for each record, after it is on disk; "refused" says how many of a reason in "count".
--exit-with-parent  end when standard input is closed.
SIGTERM or SIGINT   finish the batch in hand, send its receipts, and end with status 0.
The log goes to stderr, one JSON object a line.`,

  async run(args) {
    const { values } = parseCommand(
      "ecp-node run",
      args,
      {
        ...dataOption,
        listen: { type: "string" },
        broker: { type: "string" },
        username: { type: "string" },
        "password-file": { type: "string" },
        share: { type: "string" },
        metrics: { type: "string" },
        "metrics-per-device": { type: "string" },
        "silent-after": { type: "string" },
        ...lorawanRunOptions,
        "home-broker": { type: "string" },
        "home-device": { type: "string", multiple: true },
        "home-username": { type: "string" },
        "home-password-file": { type: "string" },
        json: { type: "boolean" },
        "exit-with-parent": { type: "boolean" },
      },
      [],
    );
    const data = requireData("ecp-node run", values.data);
    if (values.broker === undefined && (values.username ?? values["password-file"]) !== undefined)
      throw usageError("ecp-node run", "--username and --password-file are for --broker");
    if (values.broker === undefined && values.share !== undefined)
      throw usageError("ecp-node run", "--share without --broker: the node's own broker has no shared subscriptions");
    if (values.share !== undefined && !shareGroupForm.test(values.share))
      throw usageError(
        "ecp-node run",
        `--share ${values.share}, which is not 1 to 64 letters, digits, '-', '_' or '.'`,
      );
    if (values.broker !== undefined && values.listen !== undefined)
      throw usageError("ecp-node run", "--listen and --broker together: the node has one broker");
    const broker: FullNodeOptions["broker"] =
      values.broker === undefined
        ? { listen: parseListen(values.listen ?? defaultListen, "listen") }
        : {
            use: parseBroker(values.broker, values.username, values["password-file"]),
            ...(values.share !== undefined && { shareGroup: values.share }),
          };
    if (values.metrics === undefined && values["metrics-per-device"] !== undefined)
      throw usageError("ecp-node run", "--metrics-per-device without --metrics");
    const devices = wholeNumber("metrics-per-device", values["metrics-per-device"], metricsDevicesMax) ?? 0;
    const silentAfterS = wholeNumber("silent-after", values["silent-after"], silentAfterMaxS);
    const observation: ObservationOptions = {
      ...(values.metrics !== undefined && { metrics: { ...parseListen(values.metrics, "metrics"), devices } }),
      ...homeOf(values),
      ...(silentAfterS !== undefined && { silentAfterMs: silentAfterS * 1_000 }),
    };
    return await serve(
      { data, broker, ...observation, ...parseLorawan(values) },
      values.json ?? false,
      values["exit-with-parent"] ?? false,
    );
  },
};

async function serve(
  options: Pick<FullNodeOptions, "data" | "broker" | "lorawan"> & ObservationOptions,
  json: boolean,
  exitWithParent: boolean,
): Promise<number> {
  const log = createLog("node");
  const say = json ? sayJson : sayPlainly();
  let failure: unknown;
  let end: () => void = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const connection: (MqttVersion | undefined)[] = [];
  let started = false;
  const sayConnection = (mqtt: MqttVersion | undefined) =>
    say(mqtt === undefined ? { event: "disconnected" } : { event: "connected", mqtt });

  // The signals are taken before anything is started: a start that is interrupted must let go of everything too.
  // The second one ends at once.
  process.once("SIGTERM", end);
  process.once("SIGINT", end);
  // A reader that has gone away must not end the node while it holds a batch.
  process.stdout.on("error", end);
  if (exitWithParent) {
    process.stdin.on("end", end).on("close", end).on("error", end);
    process.stdin.resume();
  }
  const node = await startFullNode({
    ...options,
    log,
    report: say,
    onConnected: (version) => (started ? sayConnection(version) : connection.push(version)),
    fail: (error) => {
      failure ??= error ?? new Error("unknown");
      end();
    },
  }).catch((error: unknown) => {
    process.stdin.destroy(); // an open standard input would keep a node alive that could not start
    throw error;
  });
  say({
    event: "started",
    pid: process.pid,
    part: "node",
    broker: node.brokerUrl,
    node: node.did,
    ...(node.metricsUrl && { metrics: node.metricsUrl }),
  });
  started = true;
  connection.forEach(sayConnection);
  await ended;
  if (failure !== undefined) {
    // Nothing is tried again on a store that has failed: start again and recover.
    log.error("the node ends because its store failed", {
      got: `${failure instanceof Error ? failure.message : failure}`,
    });
    process.exit(exit.failed);
  }
  await node.stop();
  const { stored, duplicates, receipts } = node.counts;
  say({ event: "stopped", stored, duplicates, receipts });
  if (exitWithParent) process.stdin.destroy();
  return exit.ok;
}

type RunEvent =
  | StoredEvent
  | RefusedEvent
  | LorawanRunEvent
  | { event: "started"; pid: number; part: "node"; broker: string; node: string; metrics?: string }
  | { event: "connected"; mqtt: MqttVersion }
  | { event: "disconnected" }
  | { event: "stopped"; stored: number; duplicates: number; receipts: number };

function sayJson(event: RunEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

/** For people: what happens, in lines; records are counted, not listed. */
function sayPlainly(): (event: RunEvent) => void {
  let stored = 0;
  let refused = 0;
  let said = "";
  const line = (text: string) => process.stdout.write(`${localTime(Date.now())}  ${text}\n`);
  const summary = () => {
    const text = `${stored} records stored, ${refused} refused`;
    if (text !== said) line(text);
    said = text;
  };
  setInterval(summary, summaryIntervalMs).unref();
  return (event) => {
    switch (event.event) {
      case "started":
        line(`full node ${event.node}`);
        if (event.metrics) line(`metrics at ${event.metrics}/metrics`);
        line(`broker at ${event.broker}; Ctrl-C ends`);
        break;
      case "connected":
        line(`listening for records over MQTT ${event.mqtt}`);
        break;
      case "disconnected":
        line("the broker is gone; trying again");
        break;
      case "lorawan":
        line(lorawanWords[event.state]);
        break;
      case "frame-refused":
        line(`LoRaWAN: ${event.count} not taken: ${lorawanSentences[event.reason]} [${event.reason}] (${event.topic})`);
        break;
      case "stored":
        stored++;
        if (stored === 1) line(`first record: ${event.device} #${event.sequence}`);
        break;
      case "refused":
        refused += event.count;
        line(`refused ${event.count}: ${verdictSentences[event.reason]} [${event.reason}] (${event.topic})`);
        break;
      case "stopped":
        summary();
        line(`ended: ${event.receipts} receipts given, ${event.duplicates} records came more than once`);
        break;
    }
  };
}

const lorawanWords: Record<LorawanState, string> = {
  standby: "LoRaWAN: standing by; another node may have the lease",
  connecting: "LoRaWAN: this node takes the frames; connecting to the network server's broker",
  connected: "LoRaWAN: listening for frames",
};

/** HOST:PORT, [IPv6]:PORT, :PORT or PORT. */
function parseListen(text: string, option: string): { host: string; port: number } {
  const match = /^(?:(?<host>\[[0-9a-fA-F:]+\]|[^:[\]]*):)?(?<port>[0-9]{1,5})$/.exec(text);
  const port = Number(match?.groups?.port ?? Number.NaN);
  if (!(port <= 65_535)) throw usageError("ecp-node run", `--${option} ${text}, which is not HOST:PORT`);
  const host = match?.groups?.host ?? "";
  return { host: host.replace(/^\[|\]$/g, "") || "127.0.0.1", port };
}

/** What a home is shown; nothing unless it is asked for. */
function homeOf(values: {
  "home-broker"?: string | undefined;
  "home-device"?: string[] | undefined;
  "home-username"?: string | undefined;
  "home-password-file"?: string | undefined;
}): Pick<ObservationOptions, "home"> {
  const { "home-broker": broker, "home-device": named = [], "home-username": username } = values;
  const passwordFile = values["home-password-file"];
  if (broker === undefined) {
    if (named.length === 0 && (username ?? passwordFile) === undefined) return {};
    throw usageError("ecp-node run", "--home-device, --home-username or --home-password-file without --home-broker");
  }
  if (named.length === 0 || named.length > homeDevicesMax)
    throw usageError(
      "ecp-node run",
      `--home-broker with ${named.length} --home-device, expected 1 to ${homeDevicesMax}`,
    );
  const devices = named.map((did) => {
    const topic = parseTopic(topicOf(did.replace(/^did:key:/, ""), "record"));
    if (topic === undefined) throw usageError("ecp-node run", `--home-device ${did}, which is not did:key:z6Mk…`);
    return topic.device;
  });
  const { host, port } = parseBroker(broker, undefined, undefined, "home-broker");
  const password = passwordFile === undefined ? undefined : readPassword(passwordFile, "the home broker's password");
  return {
    home: {
      devices,
      broker: {
        ...{ protocol: "mqtt", host, port },
        ...(username !== undefined && { username }),
        ...(password !== undefined && { password: () => password }),
      },
    },
  };
}

function wholeNumber(option: string, text: string | undefined, max: number): number | undefined {
  if (text === undefined) return undefined;
  const number = /^[0-9]{1,9}$/.test(text) ? Number(text) : 0;
  if (number < 1 || number > max)
    throw usageError("ecp-node run", `--${option} ${text}, which is not a whole number from 1 to ${max}`);
  return number;
}

function parseBroker(
  text: string,
  username: string | undefined,
  passwordFile: string | undefined,
  option = "broker",
): BrokerAddress {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== "mqtt:" || url.hostname === "" || !/^\/?$/.test(url.pathname))
    throw usageError("ecp-node run", `--${option} ${text}, which is not mqtt://HOST:PORT`);
  if (url.username !== "" || url.password !== "")
    throw usageError(
      "ecp-node run",
      "a password on the command line, where others can see it: use --username and --password-file",
    );
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? defaultMqttPort : Number(url.port),
    ...(username !== undefined && { username }),
    ...(passwordFile !== undefined && { password: readPassword(passwordFile, "the broker's password") }),
  };
}
