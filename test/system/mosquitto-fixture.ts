/** Debian's mosquitto with a configuration of its own: one user, one password, everything logged. */
import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import type { RunningProgram } from "./running-program-fixture.ts";
import { freePort, type Scene } from "./scene-fixture.ts";

const program = "/usr/sbin/mosquitto";
const passwordProgram = "/usr/bin/mosquitto_passwd";

/** Why tests with mosquitto cannot run here; false where they can. */
export const mosquittoMissing =
  existsSync(program) && existsSync(passwordProgram) ? false : `no ${program}: apt-get install mosquitto`;

export class Mosquitto {
  readonly port: number;
  readonly username = "community";
  /** Mode 0600, as hub and full node demand. */
  readonly passwordFile: string;
  readonly #scene: Scene;
  readonly #config: string;

  private constructor(scene: Scene, port: number) {
    this.#scene = scene;
    this.port = port;
    this.passwordFile = scene.path("mqtt.password");
    this.#config = scene.path("mosquitto.conf");
    const password = "never on a command line";
    writeFileSync(this.passwordFile, `${password}\n`, { mode: 0o600 });
    const users = scene.path("mosquitto.users");
    writeFileSync(users, `${this.username}:${password}\n`, { mode: 0o600 });
    const hashed = spawnSync(passwordProgram, ["-U", users], { encoding: "utf8" });
    if (hashed.status !== 0) throw new Error(`${passwordProgram}: ${hashed.stderr}`);
    // As root it would become the user mosquitto, who may not read this folder.
    writeFileSync(
      this.#config,
      `user root
listener ${port} 127.0.0.1
allow_anonymous false
password_file ${users}
persistence false
log_dest stderr
log_type all
`,
    );
  }

  static async prepare(scene: Scene): Promise<Mosquitto> {
    return new Mosquitto(scene, await freePort());
  }

  /** Resolves when it listens. */
  async start(): Promise<RunningProgram> {
    const broker = this.#scene.startCommand(program, ["-c", this.#config]);
    await broker.line(/mosquitto version .* running/);
    return broker;
  }
}
