/** A TPM 2.0 in software (swtpm) at a Unix socket of its own, and what Debian has to use it with. */
import { existsSync, mkdirSync } from "node:fs";
import { createConnection } from "node:net";
import { eventually, type RunningProgram } from "./running-program-fixture.ts";
import type { Scene } from "./scene-fixture.ts";

const program = "/usr/bin/swtpm";

/** Why tests with a TPM cannot run here; false where they can. */
export const swtpmMissing = existsSync(program) ? false : `no ${program}: apt-get install swtpm swtpm-tools`;

export const tpmToolsMissing =
  swtpmMissing ||
  (existsSync("/usr/bin/tpm2_unseal") ? false : "no tpm2_unseal: apt-get install tpm2-tools libtss2-tcti-swtpm0");

export class SoftwareTpm {
  readonly socket: string;
  readonly #scene: Scene;
  readonly #state: string;
  #running: RunningProgram | undefined;

  constructor(scene: Scene, name = "tpm") {
    this.#scene = scene;
    this.#state = scene.path(`${name}.state`);
    this.socket = scene.path(`${name}.sock`);
    mkdirSync(this.#state);
  }

  /** Resolves when it can be asked. */
  async start(): Promise<void> {
    const server = ["--server", `type=unixio,path=${this.socket}`, "--flags", "not-need-init,startup-clear"];
    this.#running = this.#scene.startCommand(program, [
      "socket",
      "--tpm2",
      "--tpmstate",
      `dir=${this.#state}`,
      ...server,
    ]);
    await eventually("swtpm listens", () => canConnect(this.socket));
  }

  async stop(): Promise<void> {
    await this.#running?.stop();
  }

  kill(): void {
    this.#running?.signal("SIGKILL");
  }
}

function canConnect(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/** swtpm where tpm2-tools and systemd find it: two TCP ports, the second for its control channel. */
export async function startTcpTpm(scene: Scene, port: number): Promise<void> {
  const state = scene.path("tpm-tcp.state");
  mkdirSync(state);
  const tcp = (type: string, at: number): string[] => [type, `type=tcp,port=${at},bindaddr=127.0.0.1`];
  const args = ["socket", "--tpm2", "--tpmstate", `dir=${state}`, "--flags", "not-need-init,startup-clear"];
  const running = scene.startCommand(program, [...args, ...tcp("--server", port), ...tcp("--ctrl", port + 1)]);
  await eventually("swtpm listens", () => portAnswers(port + 1) || running.pid === 0);
}

function portAnswers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
