/** A LoRaWAN for whoever wants to try one: a modem on a pty, gateways over UDP, a network server behind a broker, all in real time. */
import type { ModemFamily } from "../drivers/lora/modem.ts";
import type { RegionName } from "../drivers/lora/region.ts";
import { startLoraBroker } from "./lora-broker.ts";
import type { SimulatedModem } from "./lora-modem.ts";
import type { LossModel, UplinkEvent } from "./lora-radio.ts";
import { openUdpLink } from "./lora-udp-link.ts";
import { openPty, removeSymlink, replaceSymlink } from "./pty.ts";
import { createRadioWorld, type RadioDevice, type RadioWorld } from "./radio-world.ts";
import { RealTiming } from "./simulator-timing.ts";

export interface SimulatedLoraOptions {
  readonly family: ModemFamily;
  readonly region: RegionName;
  readonly server: "chirpstack" | "tts";
  readonly device: RadioDevice;
  /** Made a symlink to the modem's pty. */
  readonly link?: string;
  /** Where the broker listens; port 0: any free one. */
  readonly broker: { readonly host: string; readonly port: number };
  /** Where the network server listens for gateways; port 0: any free one. */
  readonly udp?: { readonly host: string; readonly port: number };
  readonly dataRate?: number;
  readonly lossUp?: LossModel;
  readonly lossDown?: LossModel;
  readonly gateways?: number;
  /** False: the modem has yet to be provisioned. */
  readonly hasKeys?: boolean;
  readonly random?: () => number;
  readonly onUplink?: (event: UplinkEvent) => void;
  readonly onServerEvent?: (topic: string, json: string) => void;
}

export interface SimulatedLora {
  /** What a program opens as the modem's serial port. */
  readonly path: string;
  readonly brokerAddress: string;
  readonly udpAddress: string;
  readonly world: RadioWorld;
  readonly modem: SimulatedModem;
  readonly timing: RealTiming;
  close(): Promise<void>;
}

/** @throws NotASymlink where something else is at `link`; Error where an address is taken or no pty can be made */
export async function runSimulatedLora(options: SimulatedLoraOptions): Promise<SimulatedLora> {
  const { family, link, random = Math.random } = options;
  const timing = new RealTiming();
  const begunWallMs = Date.now() - timing.nowMs();
  const undo: (() => unknown)[] = [];
  const close = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  undo.push(() => timing.close());
  try {
    const udp = await openUdpLink(options.udp?.host ?? "127.0.0.1", options.udp?.port ?? 0);
    undo.push(() => udp.close());
    const world = createRadioWorld({
      timing,
      random,
      region: options.region,
      server: options.server,
      devices: [options.device],
      link: udp,
      wallMs: (ms) => begunWallMs + ms,
      ...(options.dataRate !== undefined && { dataRate: options.dataRate }),
      ...(options.lossUp !== undefined && { lossUp: options.lossUp }),
      ...(options.lossDown !== undefined && { lossDown: options.lossDown }),
      ...(options.gateways !== undefined && { gateways: options.gateways }),
    });
    undo.push(() => world.close());
    world.radio.onUplink = (event) => options.onUplink?.(event);
    const broker = await startLoraBroker({
      ...options.broker,
      commandFilter: world.commandFilter,
      onCommand: (topic, json) => world.command(topic, json),
    });
    undo.push(() => broker.close());
    world.onUplinkJson((topic, json) => {
      broker.publish(topic, json);
      options.onServerEvent?.(topic, json);
    });
    const modem = world.modem(family, { hasKeys: options.hasKeys ?? true });
    const pty = openPty();
    undo.push(() => pty.close());
    pty.onData((bytes) => modem.receive(bytes));
    modem.onOutput((bytes) => pty.write(bytes));
    if (link !== undefined) {
      await replaceSymlink(link, pty.path);
      undo.push(() => removeSymlink(link, pty.path));
    }
    return {
      path: pty.path,
      brokerAddress: `${broker.host}:${broker.port}`,
      udpAddress: udp.address,
      world,
      modem,
      timing,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
