/**
 * A whole LoRaWAN in one process: modems, air, gateways, network server. On a virtual clock a day of it passes in seconds; in real time
 * it is what `ecp-demo simulate lora` puts behind a pty and a broker.
 */
import type { ByteTransport } from "../drivers/byte-transport.ts";
import { DriverError } from "../drivers/failure.ts";
import type { ModemFamily } from "../drivers/lora/modem.ts";
import { type RegionName, subBands } from "../drivers/lora/region.ts";
import type { AirtimeMeter } from "./lora-airtime-meter.ts";
import type { DutyCycleMode } from "./lora-duty-cycle.ts";
import { EndDevice } from "./lora-end-device.ts";
import { LoraGateway } from "./lora-gateway.ts";
import { SimulatedModem } from "./lora-modem.ts";
import { NetworkServer } from "./lora-network-server.ts";
import { LoraRadio, type LossModel } from "./lora-radio.ts";
import { chirpStackDialect } from "./lora-server-chirpstack.ts";
import { thingsStackDialect } from "./lora-server-things-stack.ts";
import { simulatedApplications, simulatedDevice } from "./simulated-identities.ts";
import type { SimulatorTiming } from "./simulator-timing.ts";

export interface RadioDevice {
  /** 16 hexadecimal digits in lower case, as all EUIs here. */
  readonly devEui: string;
  readonly joinEui: string;
  /** 32 hexadecimal digits: what the network server has. */
  readonly appKey: string;
  readonly name?: string;
}

export interface RadioWorldOptions {
  readonly timing: SimulatorTiming;
  /** A number in [0, 1); a seeded one repeats the run. */
  readonly random: () => number;
  readonly region?: RegionName;
  readonly server?: "chirpstack" | "tts";
  /** ChirpStack: a UUID. The Things Stack: application and tenant, `meters@ttn`. */
  readonly applicationId?: string;
  readonly devices?: readonly RadioDevice[];
  /** The data rate of devices that have joined, until ADR changes it. Default 5. */
  readonly dataRate?: number;
  readonly lossUp?: LossModel;
  readonly lossDown?: LossModel;
  /** Default 1. Each loses frames by itself. */
  readonly gateways?: number;
  /** The way between gateways and the server. Default: in this process, 5 ms each way. */
  readonly link?: GatewayLink;
  readonly rx1DelayS?: number;
  /** Unix time in milliseconds of a moment of `timing`. Default: the moment itself. */
  readonly wallMs?: (timingMs: number) => number;
  readonly adrAckLimit?: number;
  readonly adrAckDelay?: number;
}

/** Carries datagrams between gateways and the network server. */
export interface GatewayLink {
  /** Gives a gateway its way to the server; `receive` is where its answers come in. */
  gateway(receive: (datagram: Uint8Array) => void): (datagram: Uint8Array) => void;
  /** The server's end: each datagram with a way back. */
  server(receive: (datagram: Uint8Array, reply: (datagram: Uint8Array) => void) => void): void;
}

export interface ModemOptions {
  /** Which of the devices; default 0. */
  readonly device?: number;
  /** Default: as the family is delivered (`rn2483`: channel, `lora-e5`: off, the others: band). */
  readonly dutyCycle?: DutyCycleMode;
  /** False: a modem without JoinEUI and AppKey, for provisioning. Default true. */
  readonly hasKeys?: boolean;
  /** Another key than the server's. */
  readonly appKey?: string;
  /** 0: without pace. Default: the family's factory setting. */
  readonly baud?: number;
}

export interface RadioWorld {
  readonly radio: LoraRadio;
  readonly server: NetworkServer;
  readonly gateways: readonly LoraGateway[];
  readonly devices: readonly RadioDevice[];
  readonly applicationId: string;
  /** The topics of command(), as an MQTT filter. */
  readonly commandFilter: string;
  /** A modem with its power on. */
  modem(family: ModemFamily, options?: ModemOptions): SimulatedModem;
  /** The airtime of a device, as the radio measured it. */
  airtimeOf(devEui: string): AirtimeMeter;
  /** Events for applications: topic and JSON. Several listeners may come. */
  onUplinkJson(listener: (topic: string, json: string) => void): void;
  /** What an application publishes; false where the server does not take it. */
  command(topic: string, json: string): boolean;
  /** Stops the gateways; timers that run do nothing more. */
  close(): void;
}

const networkDelayMs = 5;
const defaultDutyCycles: Readonly<Record<ModemFamily, DutyCycleMode>> = {
  rui3: "band",
  "lora-e5": "off",
  rn2483: "channel",
  "at-slave": "band",
};

export function createRadioWorld(options: RadioWorldOptions): RadioWorld {
  const { timing, random, region = "EU868", server: kind = "chirpstack" } = options;
  const { devices = [simulatedDevice], applicationId = simulatedApplications[kind] } = options;
  const link = options.link ?? inProcessLink(timing);
  const wallMs = options.wallMs ?? ((timingMs: number) => timingMs);
  const listeners: ((topic: string, json: string) => void)[] = [];
  const radio = new LoraRadio({
    timing,
    random,
    subBands: subBands(region),
    lossUp: options.lossUp ?? 0,
    lossDown: options.lossDown ?? 0,
  });
  const dialect =
    kind === "chirpstack"
      ? chirpStackDialect({ applicationId, regionConfigId: region.toLowerCase() })
      : thingsStackDialect({ applicationId });
  const server = new NetworkServer({
    timing,
    random,
    region,
    wallMs,
    dialect,
    publish: ({ topic, json }) => {
      for (const listener of listeners) listener(topic, json);
    },
    ...(options.rx1DelayS !== undefined && { rx1DelayS: options.rx1DelayS }),
    ...(kind === "tts" && region === "EU868" && { rx2DataRate: 3 }),
  });
  for (const { devEui, joinEui, appKey, name = devEui } of devices)
    server.addDevice({ devEui, joinEui, appKey: keyOf(appKey), name });
  link.server((datagram, reply) => server.receive(datagram, reply));
  const gateways = Array.from({ length: options.gateways ?? 1 }, (_, i): LoraGateway => {
    const gateway: LoraGateway = new LoraGateway({
      timing,
      radio,
      wallMs,
      eui: (0x0016c001f1530001n + BigInt(i)).toString(16).padStart(16, "0"),
      send: link.gateway((datagram) => gateway.receive(datagram)),
    });
    return gateway;
  });
  return {
    radio,
    server,
    gateways,
    devices,
    applicationId,
    commandFilter: dialect.commandFilter,
    modem: (family, given = {}) => {
      const known = devices[given.device ?? 0];
      if (known === undefined) throw new RangeError(`there are ${devices.length} devices, and no ${given.device}`);
      const device = new EndDevice({
        timing,
        radio,
        random,
        region,
        dutyCycle: given.dutyCycle ?? defaultDutyCycles[family],
        repeaterSafe: family === "rn2483",
        dataRate: options.dataRate ?? (region === "US915" ? 3 : 5),
        ...(options.adrAckLimit !== undefined && { adrAckLimit: options.adrAckLimit }),
        ...(options.adrAckDelay !== undefined && { adrAckDelay: options.adrAckDelay }),
      });
      device.devEui = known.devEui;
      if (given.hasKeys !== false) {
        device.joinEui = known.joinEui;
        device.appKey = keyOf(given.appKey ?? known.appKey);
      }
      return new SimulatedModem({ timing, family, device, ...(given.baud !== undefined && { baud: given.baud }) });
    },
    airtimeOf: (devEui) => radio.meterOf(devEui),
    onUplinkJson: (listener) => {
      listeners.push(listener);
    },
    command: (topic, json) => server.command(topic, json),
    close: () => {
      for (const gateway of gateways) gateway.close();
      listeners.length = 0;
    },
  };
}

/**
 * Opens a modem's serial port in memory, once or again and again; a second opening takes the line over from the first, which then
 * hears nothing. The modem goes on whether anybody has its port open or not.
 */
export function modemTransport(modem: SimulatedModem): () => Promise<ByteTransport> {
  return async () => {
    let isOpen = true;
    let onData: (bytes: Uint8Array) => void = () => {};
    let onClosed: (error?: Error) => void = () => {};
    modem.onOutput((bytes) => {
      if (isOpen) onData(bytes);
    });
    const description = `simulated ${modem.family}`;
    return {
      description,
      write: async (bytes) => {
        if (!isOpen) throw new DriverError("port-closed", `${description}: expected an open port, and it was closed.`);
        modem.receive(bytes);
      },
      onData: (listener) => {
        onData = listener;
      },
      onClosed: (listener) => {
        onClosed = listener;
      },
      isCurrent: async () => true,
      close: async () => {
        if (!isOpen) return;
        isOpen = false;
        onClosed();
      },
    };
  };
}

function inProcessLink(timing: SimulatorTiming): GatewayLink {
  let server: Parameters<GatewayLink["server"]>[0] = () => {};
  return {
    gateway: (receive) => (up) => {
      timing.after(networkDelayMs, () =>
        server(up, (down) => {
          timing.after(networkDelayMs, () => receive(down));
        }),
      );
    },
    server: (receive) => {
      server = receive;
    },
  };
}

function keyOf(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, "hex"));
}
