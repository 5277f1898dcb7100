/** The stream of bytes to a broker: TCP, TLS, or WebSocket over either. */
import { readFileSync } from "node:fs";
import { connect as connectTcp, isIP, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import type * as Tls from "node:tls";
import type { MqttConfiguration } from "./configuration.ts";
import { WebSocketStream } from "./websocket-stream.ts";

/** The files that a connection needs, read. */
export interface BrokerFiles {
  readonly password?: string;
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
}

/** Throws Error where one cannot be read. */
export function readBrokerFiles(broker: MqttConfiguration): BrokerFiles {
  const { passwordFile, caFile, certFile, keyFile } = broker;
  return {
    ...(passwordFile !== undefined && { password: readFileSync(passwordFile, "utf8").trim() }),
    ...(caFile !== undefined && { ca: readPem("ca_file", caFile, "CERTIFICATE") }),
    ...(certFile !== undefined && { cert: readPem("cert_file", certFile, "CERTIFICATE") }),
    ...(keyFile !== undefined && { key: readPem("key_file", keyFile, "PRIVATE KEY") }),
  };
}

/** An authority's file that holds none is taken by OpenSSL without a word, a certificate's with one that names no file. */
function readPem(name: string, path: string, label: string): Buffer {
  const bytes = readFileSync(path);
  if (new RegExp(`-----BEGIN [A-Z ]*${label}-----`).test(bytes.toString("latin1"))) return bytes;
  throw new Error(`'${name}: ${path}' in hub.yaml holds no ${label.toLowerCase()} in PEM (-----BEGIN …)`);
}

/** TLS costs memory: it is loaded where a broker needs it. */
export async function loadTls(broker: MqttConfiguration): Promise<typeof Tls | undefined> {
  return isEncrypted(broker) ? import("node:tls") : undefined;
}

function isEncrypted({ protocol }: MqttConfiguration): boolean {
  return protocol === "mqtts" || protocol === "wss";
}

export function addressOf({ protocol, host, port, path }: MqttConfiguration): string {
  return `${protocol}://${authorityOf(host, port)}${path ?? ""}`;
}

function authorityOf(host: string, port: number): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** Begins to connect. Throws Error where the TLS files make no sense. */
export function openBrokerStream(broker: MqttConfiguration, files: BrokerFiles, tls: typeof Tls | undefined): Duplex {
  const { protocol, host, port, path } = broker;
  const socket = tls ? openTls(broker, files, tls) : connectTcp({ host, port });
  // Small packets both ways: with Nagle's algorithm each would wait for the other side's delayed acknowledgement (40 ms).
  socket.setNoDelay(true);
  if (protocol === "mqtt" || protocol === "mqtts") return socket;
  return new WebSocketStream(socket, tls ? "secureConnect" : "connect", {
    authority: authorityOf(host, port),
    path: path ?? "/mqtt",
  });
}

function openTls(
  { host, port, serverName }: MqttConfiguration,
  { ca, cert, key }: BrokerFiles,
  tls: typeof Tls,
): Socket {
  const servername = serverName ?? (isIP(host) === 0 ? host : undefined);
  checkPair(cert, key, tls);
  return tls.connect({
    host,
    port,
    minVersion: "TLSv1.2",
    // Beside Node's own list the roots that this machine's operator trusts.
    ca: ca ?? [...tls.getCACertificates("default"), ...tls.getCACertificates("system")],
    ...(cert && { cert }),
    ...(key && { key }),
    ...(servername !== undefined && { servername }),
  });
}

function checkPair(cert: Buffer | undefined, key: Buffer | undefined, tls: typeof Tls): void {
  if (cert === undefined || key === undefined) return;
  try {
    tls.createSecureContext({ cert, key });
  } catch (error) {
    throw new Error(
      `the files of 'cert_file:' and 'key_file:' in hub.yaml cannot be used together (${(error as Error).message}); the key must be the certificate's, and not under a passphrase`,
    );
  }
}

/** What to do about a failure of TLS, for people; undefined where it is none. */
export function tlsAdvice(code: string): string | undefined {
  if (/SELF_SIGNED|UNABLE_TO_(GET|VERIFY)|CERT_UNTRUSTED/.test(code))
    return "its certificate is of no authority that is trusted here: set 'ca_file:' under 'uplink: mqtt:' in hub.yaml";
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID")
    return "its certificate is for another name: connect to that name, or set 'server_name:' under 'uplink: mqtt:' in hub.yaml";
  if (code === "CERT_HAS_EXPIRED" || code === "CERT_NOT_YET_VALID")
    return "its certificate is not valid at this hub's time: renew it, or set the clock";
  if (/CERTIFICATE_REQUIRED|BAD_CERTIFICATE|HANDSHAKE_FAILURE|UNKNOWN_CA/.test(code))
    return "it wants a certificate of this hub that it trusts: set 'cert_file:' and 'key_file:' under 'uplink: mqtt:' in hub.yaml";
  return undefined;
}
