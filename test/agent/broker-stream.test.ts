import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer as createHttp } from "node:http";
import { createServer as createHttps } from "node:https";
import { type AddressInfo, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { createServer as createTls } from "node:tls";
import { Aedes } from "aedes";
import { createWebSocketStream, WebSocketServer } from "ws";
import type { MqttConfiguration } from "../../agent/configuration.ts";
import { MqttUplink } from "../../agent/mqtt-uplink.ts";
import { BackOff } from "../../platform/back-off.ts";

const device = "z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";

/** An authority, a server's certificate for broker.example, a hub's, and one that the authority did not sign; all fresh. */
class Certificates {
  readonly #folder: string;

  constructor(t: TestContext) {
    this.#folder = mkdtempSync(join(tmpdir(), "ecp-tls-"));
    t.after(() => rmSync(this.#folder, { recursive: true, force: true }));
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    const request = (name: string, ...more: string[]): void => {
      const files = ["-keyout", this.path(`${name}.key`), "-out", this.path(`${name}.crt`)];
      execFileSync("openssl", ["req", "-x509", ...key, ...files, "-days", "2", "-subj", `/CN=${name}`, ...more], {
        stdio: "pipe",
      });
    };
    const signed = ["-CA", this.path("ca.crt"), "-CAkey", this.path("ca.key")];
    request("ca");
    request("broker", ...signed, "-addext", "subjectAltName=DNS:broker.example");
    request("hub", ...signed);
    request("stranger");
  }

  path(name: string): string {
    return join(this.#folder, name);
  }
  read(name: string): Buffer {
    return readFileSync(this.path(name));
  }
}

async function listening(t: TestContext, server: Server): Promise<number> {
  const sockets = new Set<{ destroy(): void }>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
  });
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** Connects once: "connected", or the reason why not. */
function outcome(t: TestContext, broker: MqttConfiguration): Promise<string> {
  return new Promise((resolve) => {
    const uplink = new MqttUplink({
      ...{ brokers: [broker], device, onReceipt: () => undefined },
      backOff: new BackOff({ firstMs: 60_000, longestMs: 60_000 }),
      onState: (connected, detail = "") => resolve(connected ? "connected" : detail),
    });
    t.after(() => uplink.stop());
    uplink.start();
  });
}

async function tlsBroker(t: TestContext, certificates: Certificates, maxVersion?: "TLSv1.1"): Promise<number> {
  const aedes = await Aedes.createBroker();
  t.after(() => aedes.close());
  const server = createTls(
    {
      cert: certificates.read("broker.crt"),
      key: certificates.read("broker.key"),
      ca: certificates.read("ca.crt"),
      requestCert: true,
      rejectUnauthorized: true,
      ...(maxVersion && { maxVersion, minVersion: "TLSv1", ciphers: "DEFAULT@SECLEVEL=0" }),
    },
    (socket) => aedes.handle(socket),
  );
  server.on("tlsClientError", () => undefined);
  return listening(t, server);
}

test("TLS: own authority, the certificate's name, a certificate of the hub; what is wrong is said", async (t) => {
  const certificates = new Certificates(t);
  const port = await tlsBroker(t, certificates);
  const good: MqttConfiguration = {
    ...{ protocol: "mqtts", host: "127.0.0.1", port, serverName: "broker.example" },
    ...{ caFile: certificates.path("ca.crt") },
    ...{ certFile: certificates.path("hub.crt"), keyFile: certificates.path("hub.key") },
  };
  assert.equal(await outcome(t, good), "connected");
  const { caFile: _ca, ...noAuthority } = good;
  assert.match(await outcome(t, noAuthority), /set 'ca_file:'/);
  const { serverName: _name, ...noName } = good;
  assert.match(await outcome(t, noName), /for another name: .*'server_name:'/);
  const { certFile: _cert, keyFile: _key, ...noCertificate } = good;
  assert.match(await outcome(t, noCertificate), /set 'cert_file:' and 'key_file:'|closed the connection/);
  const stranger = { certFile: certificates.path("stranger.crt"), keyFile: certificates.path("stranger.key") };
  assert.match(await outcome(t, { ...good, ...stranger }), /a certificate of this hub|closed the connection/);
  assert.match(await outcome(t, { ...good, certFile: certificates.path("none.crt") }), /ENOENT.*none\.crt/);
  assert.match(
    await outcome(t, { ...good, keyFile: certificates.path("ca.crt") }),
    /'key_file: \/.*holds no private key/,
  );
  assert.match(
    await outcome(t, { ...good, caFile: certificates.path("ca.key") }),
    /'ca_file: \/.*holds no certificate/,
  );
  const mixed = { ...good, keyFile: certificates.path("stranger.key") };
  assert.match(await outcome(t, mixed), /cannot be used together .*the key must be the certificate's/);
  for (const wrong of [noCertificate, mixed]) assert.doesNotMatch(await outcome(t, wrong), /\n|\.c:|:error:/);
});

test("TLS 1.1 is refused; the same server with 1.2 is not", async (t) => {
  const certificates = new Certificates(t);
  const broker = async (maxVersion?: "TLSv1.1"): Promise<MqttConfiguration> => ({
    ...{ protocol: "mqtts", host: "127.0.0.1", port: await tlsBroker(t, certificates, maxVersion) },
    ...{ serverName: "broker.example", caFile: certificates.path("ca.crt") },
    ...{ certFile: certificates.path("hub.crt"), keyFile: certificates.path("hub.key") },
  });
  assert.match(await outcome(t, await broker("TLSv1.1")), /version|protocol|closed/i);
  assert.equal(await outcome(t, await broker()), "connected");
});

/** The `ws` package as the server: somebody else's WebSocket. */
async function webSocketBroker(
  t: TestContext,
  certificates?: Certificates,
): Promise<{ port: number; records: number[]; recorded: (count: number) => Promise<void> }> {
  const aedes = await Aedes.createBroker();
  t.after(() => aedes.close());
  const records: number[] = [];
  let news = (): void => undefined;
  const recorded = async (count: number): Promise<void> => {
    while (records.length < count)
      await new Promise<void>((resolve) => {
        news = resolve;
      });
  };
  aedes.on("publish", ({ topic, payload }) => {
    if (topic.endsWith("/record")) records.push(payload.length);
    news();
  });
  const tls = certificates && { cert: certificates.read("broker.crt"), key: certificates.read("broker.key") };
  const server = tls ? createHttps(tls) : createHttp();
  const sockets = new WebSocketServer({ server, path: "/mqtt", handleProtocols: () => "mqtt" });
  sockets.on("connection", (socket) => {
    socket.ping("are you there");
    const stream = createWebSocketStream(socket);
    stream.on("error", () => undefined);
    aedes.handle(stream);
  });
  return { port: await listening(t, server as unknown as Server), records, recorded };
}

test("over WebSocket: records of every length of frame arrive, and pings are answered", async (t) => {
  const { port, records, recorded } = await webSocketBroker(t);
  const lengths = [1, 20, 125, 126, 250, 4_000, 40_000];
  let left = 0;
  const done = new Promise<void>((resolve) => {
    const uplink = new MqttUplink({
      brokers: [{ protocol: "ws", host: "127.0.0.1", port, path: "/mqtt" }],
      ...{ device, onReceipt: () => undefined },
      backOff: new BackOff({ firstMs: 60_000, longestMs: 60_000 }),
      onState: (connected) => {
        if (!connected) return;
        for (const length of lengths)
          uplink.publish(new Uint8Array(length), "backlog", () => {
            if (++left === lengths.length) resolve();
          });
      },
    });
    t.after(() => uplink.stop());
    uplink.start();
  });
  await done;
  await recorded(lengths.length);
  assert.deepEqual(records, lengths);
});

test("over WebSocket in TLS", async (t) => {
  const certificates = new Certificates(t);
  const { port } = await webSocketBroker(t, certificates);
  const broker: MqttConfiguration = {
    ...{ protocol: "wss", host: "127.0.0.1", port, path: "/mqtt", serverName: "broker.example" },
    caFile: certificates.path("ca.crt"),
  };
  assert.equal(await outcome(t, broker), "connected");
});

test("a server that is no WebSocket, another path, or nonsense in frames: said, and the connection ends", async (t) => {
  const { port } = await webSocketBroker(t);
  assert.match(await outcome(t, { protocol: "ws", host: "127.0.0.1", port, path: "/other" }), /WebSocket at \/other/);
  const plain = await listening(t, createHttp((_request, response) => response.end("hello")) as unknown as Server);
  assert.match(await outcome(t, { protocol: "ws", host: "127.0.0.1", port: plain }), /does not speak WebSocket/);
  const endless = await listening(
    t,
    createServer((socket) => socket.on("data", () => socket.write("x".repeat(9_000)))),
  );
  assert.match(await outcome(t, { protocol: "ws", host: "127.0.0.1", port: endless }), /longer than 8192 bytes/);
  const wrongKey = await listening(
    t,
    createServer((socket) =>
      socket.on("data", () =>
        socket.write("HTTP/1.1 101 ok\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"),
      ),
    ),
  );
  assert.match(await outcome(t, { protocol: "ws", host: "127.0.0.1", port: wrongKey }), /Sec-WebSocket-Accept/);
});
