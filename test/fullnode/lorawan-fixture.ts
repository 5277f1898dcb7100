/** A full node's LoRaWAN intake over a store of its own, without a broker: events go in as a network server publishes them. */
import { randomUUID } from "node:crypto";
import type { TestContext } from "node:test";
import { chirpStack } from "../../fullnode/chirpstack.ts";
import { LorawanIntake, type LorawanIntakeParts } from "../../fullnode/lorawan-intake.ts";
import type { NetworkServer } from "../../fullnode/lorawan-uplink.ts";
import { Registry } from "../../fullnode/registry.ts";
import { createLog } from "../../platform/log.ts";
import { encodeCose } from "../../protocol/cose-sign1.ts";
import { packetOf } from "../../protocol/lorawan.ts";
import { decodeRecord } from "../../protocol/record.ts";
import { type SealedRecord, sha256 } from "./device-fixture.ts";
import { NodeFixture } from "./node-fixture.ts";

export const application = "7f0c2f6e-0b0e-4f5a-9d0f-2b9c6a1d8e11";

export interface SentDownlink {
  readonly devEui: string;
  readonly fPort: number;
  readonly bytes: Uint8Array;
  readonly id: string;
  readonly expiresAt: string;
}

/** What ChirpStack publishes for an uplink, as its documentation has it; zero fields of gateways are left out. */
export function chirpStackUp(
  devEui: string,
  { fCnt, fPort, bytes }: { fCnt: number; fPort?: number; bytes?: Uint8Array },
  more: Record<string, unknown> = {},
): { topic: string; payload: Buffer } {
  const event = {
    deduplicationId: randomUUID(),
    time: "2026-01-05T10:15:03.120000000+00:00",
    deviceInfo: { tenantName: "t", applicationId: application, deviceName: "m1", devEui, tags: {} },
    devAddr: "01020304",
    adr: true,
    dr: 0,
    fCnt,
    ...(fPort !== undefined && { fPort }),
    confirmed: false,
    ...(bytes && { data: Buffer.from(bytes).toString("base64") }),
    rxInfo: [{ gatewayId: "0016c001f1530001", uplinkId: 991, rssi: -112, snr: -7.5, crcStatus: "CRC_OK" }],
    txInfo: {
      frequency: 868_500_000,
      modulation: { lora: { bandwidth: 125_000, spreadingFactor: 12, codeRate: "CR_4_5" } },
    },
    regionConfigId: "eu868",
    ...more,
  };
  return { topic: `application/${application}/device/${devEui}/event/up`, payload: Buffer.from(JSON.stringify(event)) };
}

/** A record as it travels by LoRaWAN: without tag and kid. */
export function packetOfRecord({ bytes }: SealedRecord): Uint8Array {
  const { cose } = decodeRecord(bytes, sha256);
  const { protectedHeader, payload, signature } = cose;
  return packetOf(encodeCose({ protectedHeader, payload, signature }));
}

export class LorawanFixture {
  readonly node: NodeFixture;
  readonly commands: { topic: string; json: string }[] = [];
  readonly refused: string[] = [];
  isConnected = true;
  intake!: LorawanIntake;
  wallMs = 1_800_000_000_000;
  monotonicMs = 1_000_000;
  readonly #options: Partial<LorawanIntakeParts>;
  readonly #server: NetworkServer;

  private constructor(node: NodeFixture, server: NetworkServer, options: Partial<LorawanIntakeParts>) {
    this.node = node;
    this.#server = server;
    this.#options = options;
  }

  static async open(
    t: TestContext,
    options: Partial<LorawanIntakeParts> = {},
    server: NetworkServer = chirpStack(application),
  ): Promise<LorawanFixture> {
    const fixture = new LorawanFixture(new NodeFixture(t), server, options);
    await fixture.begin();
    t.after(() => fixture.intake.stop());
    return fixture;
  }

  /** A new intake over what is in the store. */
  async begin(others: Partial<LorawanIntakeParts> = {}): Promise<void> {
    const { store, keys, path } = this.node;
    this.intake = await LorawanIntake.open({
      ...{ store, keys, path, server: this.#server, receipts: "each" },
      registry: new Registry(store),
      publishCommand: (topic, json) => {
        if (this.isConnected) this.commands.push({ topic, json });
        return this.isConnected;
      },
      clock: { wallMs: () => this.wallMs, monotonicMs: () => this.monotonicMs },
      after: () => () => undefined, // saved when asked for
      log: createLog("test", (line) => this.node.logLines.push(line)),
      report: ({ reason, count }) => this.refused.push(...Array<string>(count).fill(reason)),
      ...this.#options,
      ...others,
    });
  }

  /** Time goes by, on both clocks. */
  pass(ms: number): void {
    this.wallMs += ms;
    this.monotonicMs += ms;
  }

  /** Another process has written to the store. */
  expectChanges(): void {
    const { store } = this.node;
    Object.defineProperty(store, "foreignChanges", { value: () => 1_000_000, configurable: true });
  }

  /** ChirpStack says that a gateway has sent them. */
  sent(downlinks: readonly SentDownlink[]): void {
    for (const { devEui, id } of downlinks) this.#event(devEui, "txack", { queueItemId: id, fCntDown: 2 });
  }

  failed(downlinks: readonly SentDownlink[], code: string): void {
    for (const { devEui, id } of downlinks)
      this.#event(devEui, "log", { level: "ERROR", code, description: "", context: { queue_item_id: id } });
  }

  #event(devEui: string, kind: string, content: Record<string, unknown>): void {
    const topic = `application/${application}/device/${devEui}/event/${kind}`;
    this.intake.receive(topic, Buffer.from(JSON.stringify({ deviceInfo: { devEui }, ...content })));
  }

  /** As after the end of a process: what was not saved is gone. */
  async restart(): Promise<void> {
    await this.node.restart();
    await this.begin();
  }

  async up(devEui: string, fCnt: number, fPort: number, bytes: Uint8Array): Promise<void> {
    const { topic, payload } = chirpStackUp(devEui, { fCnt, fPort, bytes });
    this.intake.receive(topic, payload);
    await this.intake.idle();
  }

  /** ChirpStack commands that were given since the last call. */
  takeDownlinks(): SentDownlink[] {
    return this.commands.splice(0).map(({ json }) => {
      const { devEui, fPort, data, id, expiresAt } = JSON.parse(json);
      return { devEui, fPort, bytes: new Uint8Array(Buffer.from(data, "base64")), id, expiresAt };
    });
  }
}
