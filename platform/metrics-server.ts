/**
 * An HTTP listener for whoever watches: GET /metrics gives a text, GET /healthz 200 or 503. Nothing else is answered, nothing is
 * read from a request but its first line.
 */
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

const connectionsMax = 32;
const headerBytesMax = 8_192;
const requestTimeoutMs = 5_000;

export interface MetricsParts {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly contentType: string;
  metrics(): Promise<string>;
  /** What is wrong; empty: nothing. */
  problems(): readonly string[];
}

export interface MetricsServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Listens; rejects with the system's error where it cannot. */
export async function serveMetrics(parts: MetricsParts): Promise<MetricsServer> {
  const server = createServer(
    {
      maxHeaderSize: headerBytesMax,
      headersTimeout: requestTimeoutMs,
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: requestTimeoutMs,
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => {
      request.resume();
      answer(parts, request.method ?? "", request.url ?? "", response).catch(() => response.destroy());
    },
  );
  server.maxConnections = connectionsMax;
  server.on("clientError", (_error, socket) => socket.destroy());
  await listen(server, parts.host, parts.port);
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(parts: MetricsParts, method: string, url: string, response: ServerResponse): Promise<void> {
  const path = url.split("?", 1)[0];
  if (path !== "/metrics" && path !== "/healthz") return say(response, 404, "text/plain", "/metrics or /healthz\n");
  if (method !== "GET" && method !== "HEAD") {
    response.setHeader("Allow", "GET, HEAD");
    return say(response, 405, "text/plain", "GET or HEAD\n");
  }
  if (path === "/metrics") return say(response, 200, parts.contentType, await parts.metrics());
  const problems = parts.problems();
  say(response, problems.length === 0 ? 200 : 503, "application/json", `${JSON.stringify({ problems })}\n`);
}

function say(response: ServerResponse, status: number, contentType: string, text: string): void {
  response.writeHead(status, { "Content-Type": contentType, "Content-Length": Buffer.byteLength(text) });
  response.end(text); // Node itself leaves the body out of an answer to HEAD
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve();
    });
  });
}
