import assert from "node:assert/strict";
import { once } from "node:events";
import { linkSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { test } from "node:test";
import type { AgentStatus } from "../../agent/agent-status.ts";
import { askStatus, serveStatus } from "../../platform/status-socket.ts";
import { socketPath } from "../agent/socket-folder.ts";

const status: AgentStatus = {
  device: "z6Mk",
  wallet: "connected",
  uplink: undefined,
  sealed: 3,
  acknowledged: 2,
  waiting: 1,
  backlog: { records: 1, stored: 0, rows: 1, bytes: 256 },
  meters: [],
};
const served = JSON.parse(JSON.stringify(status));

test("gives its status to whoever of its user or group asks", async (t) => {
  const path = socketPath(t);
  const server = await serveStatus(path, () => status);
  t.after(() => server.close());
  assert.deepEqual(await askStatus(path), served);
  assert.equal(statSync(path).mode & 0o777, 0o660);
});

test("where no agent answers there is no status", async (t) => {
  assert.equal(await askStatus(socketPath(t)), undefined);
});

test("what is no status is said to be none", async (t) => {
  const path = socketPath(t);
  const server = createServer((socket) => socket.end("<html>")).listen(path);
  t.after(() => server.close());
  await once(server, "listening");
  await assert.rejects(askStatus(path), /no status that can be read/);
});

test("a second agent at the same socket is refused, and the first goes on", async (t) => {
  const path = socketPath(t);
  const server = await serveStatus(path, () => status);
  t.after(() => server.close());
  await assert.rejects(
    serveStatus(path, () => status),
    /another agent answers at/,
  );
  assert.deepEqual(await askStatus(path), served);
});

test("a socket that a dead agent left is replaced; a file that is no socket is left alone", async (t) => {
  const path = socketPath(t);
  const dead = createServer().listen(path);
  await once(dead, "listening");
  // As after kill -9: the descriptor is gone, the file is there. Node would unlink it, so it is linked anew.
  linkSync(path, `${path}.dead`);
  dead.close();
  await once(dead, "close");
  const server = await serveStatus(`${path}.dead`, () => status);
  t.after(() => server.close());
  assert.deepEqual(await askStatus(`${path}.dead`), served);
  writeFileSync(`${path}.file`, "precious");
  await assert.rejects(
    serveStatus(`${path}.file`, () => status),
    /no socket; it was left as it is/,
  );
  assert.equal(readFileSync(`${path}.file`, "utf8"), "precious");
});

test("a path that no Unix socket can have is refused with its limit", async (t) => {
  const path = socketPath(t).padEnd(108, "x");
  await assert.rejects(
    serveStatus(path, () => status),
    /longer than 107 bytes/,
  );
});

test("whoever connects and stays is hung up on, so that others get in", async (t) => {
  const path = socketPath(t);
  const server = await serveStatus(path, () => status, 300);
  t.after(() => server.close());
  const sockets: Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  for (let i = 0; i < 8; i++) {
    const socket = createConnection({ path, allowHalfOpen: true }); // takes the status, and never hangs up
    sockets.push(socket);
    await once(socket.resume(), "end");
  }
  assert.equal(await askStatus(path), undefined, "control: it is full");
  let answer: AgentStatus | undefined;
  while (answer === undefined) answer = await askStatus(path);
  assert.deepEqual(answer, served);
});
