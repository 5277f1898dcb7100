/** What an agent is told: hub.yaml, read and checked by the command line (cli/hub-configuration.ts). Paths are absolute. */
import type { TcpLineSettings } from "../drivers/modbus/tcp-line.ts";
import type { SerialSettings } from "../drivers/serial/serial-settings.ts";
import type { HomeBroker } from "../platform/home-link.ts";

export interface LineConfiguration {
  readonly name: string;
  readonly serial?: SerialSettings;
  readonly tcp?: TcpLineSettings;
}

export interface MeterConfiguration {
  /** Number of the meter in records and in the wallet's policy. */
  readonly index: number;
  readonly name: string;
  readonly line: string;
  /** Modbus unit (slave address), 1 to 247. */
  readonly unit: number;
  /** Profile id, such as eastron-sdm630. */
  readonly profile: string;
  /** Seconds between readings, aligned to the clock. */
  readonly intervalS: number;
  /** Seconds between readings of the registers that only rise (energies), a multiple of intervalS; intervalS where absent. */
  readonly energyIntervalS?: number;
  /** Quantity codes, ascending; the profile's own where absent. */
  readonly codes?: readonly number[];
  /** Most power that the connection can carry in W; 0: not given. */
  readonly powerMaxW: number;
}

export interface MqttConfiguration {
  readonly protocol: "mqtt" | "mqtts" | "ws" | "wss";
  readonly host: string;
  readonly port: number;
  /** Of a WebSocket; /mqtt where absent. */
  readonly path?: string;
  readonly username?: string;
  readonly passwordFile?: string;
  /** Authority of the broker's certificate, PEM; those that Node and this machine trust where absent. */
  readonly caFile?: string;
  /** This hub's own certificate and key, PEM. */
  readonly certFile?: string;
  readonly keyFile?: string;
  /** The name in the broker's certificate, where it is not the host's. */
  readonly serverName?: string;
  /** "newest": only records just sealed, never what waits from before. */
  readonly carries?: "all" | "newest";
  /** The first delay before a broker that was lost is tried again is chance up to this. */
  readonly reconnectFirstMs?: number;
}

/** A LoRaWAN modem, and what goes over it: rows of plan {@link loraPlan}, far apart. */
export interface LoraConfiguration {
  readonly modem: {
    /** Of its serial port. */
    readonly path: string;
    readonly family: "rui3" | "lora-e5" | "rn2483" | "at-slave";
    readonly baud: number;
  };
  readonly region: "EU868" | "US915" | "AU915" | "AS923";
  /** Seconds between rows, aligned to the clock: a multiple of every meter's intervalS and energyIntervalS. */
  readonly slotS: number;
  /** Quantity codes that go this way beside the registers that only rise, ascending. */
  readonly codes: readonly number[];
  /** Seconds that one record covers; "auto" follows the data rate and the budget. */
  readonly batchS: number | "auto";
  /** Most airtime in any 24 hours, in seconds; absent: only the region's law counts. */
  readonly fairUseSPerDay?: number;
  readonly rx1DelayS: number;
  /** The full node gives one receipt in so many hours; absent: one for each record. */
  readonly receiptsH?: number;
  /** "fallback": a record goes this way only where no receipt has named it for a while. */
  readonly when: "fallback" | "always";
  /** Where the uplink's state is kept over a restart. */
  readonly stateFolder: string;
}

/** The uplink plan of the rows that go over LoRaWAN; 0 is the full one. */
export const loraPlan = 1;

/** Plain values for the home, over a broker of its own. */
export interface HomeConfiguration {
  readonly broker: HomeBroker;
  /** Seconds between two values of one quantity, at least. */
  readonly everyS: number;
}

export interface HubConfiguration {
  /** Where the wallet answers. */
  readonly walletSocket: string;
  /** The wallet's folder, for `ecp run`, `ecp config apply`, `ecp pin`. */
  readonly walletFolder: string;
  readonly passphraseFile?: string;
  /** Where the agent answers `ecp status`. */
  readonly agentSocket: string;
  readonly lines: readonly LineConfiguration[];
  readonly meters: readonly MeterConfiguration[];
  /** Seconds that one record covers at most; 0: each reading by itself. */
  readonly sealEveryS: number;
  readonly mqtt?: MqttConfiguration;
  readonly lora?: LoraConfiguration;
  readonly home?: HomeConfiguration;
  /** Where metrics are served. */
  readonly metrics?: { readonly host: string; readonly port: number };
  /** Brokers to use where that one cannot be reached, in this order. */
  readonly mqttFallbacks?: readonly MqttConfiguration[];
  /** Memory for records that were sent and wait for a receipt, in bytes. */
  readonly windowBytes?: number;
}
