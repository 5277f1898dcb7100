/** A private PostgreSQL server of Debian's: in a folder of its own, on a Unix socket and a port of 127.0.0.1, as the user postgres. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import "../system/running-program-fixture.ts";
import { freePort } from "../system/scene-fixture.ts";

const versionsFolder = "/usr/lib/postgresql";
const serverUser = "postgres";
const role = "ecp";

function findPrograms(): string | undefined {
  if (!existsSync(versionsFolder)) return undefined;
  const versions = readdirSync(versionsFolder).sort((a, b) => Number(b) - Number(a));
  const folders = versions.map((version) => path.join(versionsFolder, version, "bin"));
  return folders.find((folder) => ["initdb", "postgres", "psql"].every((name) => existsSync(path.join(folder, name))));
}

/** PostgreSQL refuses to run as root. */
function idsOfServerUser(): { uid: number; gid: number } | undefined {
  const ask = (flag: string) => spawnSync("id", [flag, serverUser], { encoding: "utf8" });
  const [uid, gid] = [ask("-u"), ask("-g")];
  return uid.status === 0 && gid.status === 0 ? { uid: Number(uid.stdout), gid: Number(gid.stdout) } : undefined;
}

const programs = findPrograms();
const identity: { uid?: number; gid?: number } | undefined = process.getuid?.() === 0 ? idsOfServerUser() : {};

/** Why tests with PostgreSQL cannot run here; false where they can. */
export const postgresMissing: string | false =
  programs === undefined
    ? `no ${versionsFolder}/*/bin/postgres: apt-get install postgresql`
    : identity === undefined
      ? `no user ${serverUser}: apt-get install postgresql`
      : false;

/** As it can be handed to another process. */
export interface PostgresPlace {
  readonly folder: string;
  readonly port: number;
}

/** The address of a database over the Unix socket, where nobody asks for a password. */
export function postgresUrl({ folder, port }: PostgresPlace, database: string): string {
  return `postgres://${role}@/${database}?host=${encodeURIComponent(folder)}&port=${port}`;
}

/** Runs SQL in a database, past the store's own code and at once, as an auditor would. Gives the rows of a query. */
export function queryNow(place: PostgresPlace, database: string, sql: string): Record<string, unknown>[] {
  const { status, stdout, stderr } = spawnSync(
    path.join(programs ?? "", "psql"),
    [
      "-X",
      "-q",
      "-A",
      "-t",
      "-v",
      "ON_ERROR_STOP=1",
      "-h",
      place.folder,
      "-p",
      `${place.port}`,
      "-U",
      role,
      "-d",
      database,
      "-f",
      "-",
    ],
    { encoding: "utf8", input: sql, maxBuffer: 256 * 1024 * 1024 },
  );
  if (status !== 0) throw new Error(`psql: ${stderr}`);
  const text = stdout.trim();
  return text === "" ? [] : (JSON.parse(text, asBytes) as Record<string, unknown>[]);
}

/** SQL whose rows come as one line of JSON for {@link queryNow}. */
export function asJsonQuery(sql: string, parameters: readonly (string | number)[] = []): string {
  let next = 0;
  const filled = sql.replaceAll("?", () => {
    const value = parameters[next++];
    return typeof value === "number" ? `${value}` : `'${value}'`;
  });
  return `SELECT coalesce(json_agg(_row), '[]') FROM (${filled}) _row`;
}

function asBytes(_key: string, value: unknown): unknown {
  if (typeof value !== "string" || !/^\\x([0-9a-f]{2})*$/.test(value)) return value;
  return Uint8Array.from(Buffer.from(value.slice(2), "hex"));
}

export class PostgresServer implements PostgresPlace {
  readonly folder: string;
  readonly port: number;
  /** Of the role over TCP. */
  readonly password = "never on a command line";
  #process: ChildProcess | undefined;

  private constructor(folder: string, port: number) {
    this.folder = folder;
    this.port = port;
  }

  static async start(): Promise<PostgresServer> {
    if (postgresMissing) throw new Error(postgresMissing);
    const folder = mkdtempSync(path.join(tmpdir(), "ecp-pg-"));
    const passwordFile = path.join(folder, "password");
    const server = new PostgresServer(folder, await freePort());
    writeFileSync(passwordFile, server.password);
    if (identity?.uid !== undefined && identity.gid !== undefined)
      for (const name of [folder, passwordFile]) chownSync(name, identity.uid, identity.gid);
    const made = spawnSync(
      path.join(programs ?? "", "initdb"),
      [
        ...["-D", path.join(folder, "data"), "-U", role, "-E", "UTF8", "--locale=C", "--no-sync"],
        ...["--auth-local=trust", "--auth-host=scram-sha-256", `--pwfile=${passwordFile}`],
      ],
      { ...identity, cwd: folder, encoding: "utf8" },
    );
    if (made.status !== 0) throw new Error(`initdb: ${made.stderr}`);
    await server.resume();
    return server;
  }

  /** Starts it on the data that is there. */
  async resume(...settings: string[]): Promise<void> {
    const options = [
      "listen_addresses=127.0.0.1",
      `port=${this.port}`,
      `unix_socket_directories=${this.folder}`,
      "max_connections=500",
      ...settings,
    ];
    const server = spawn(
      path.join(programs ?? "", "postgres"),
      ["-D", path.join(this.folder, "data"), ...options.flatMap((option) => ["-c", option])],
      { ...identity, cwd: this.folder, stdio: ["ignore", "ignore", "pipe"] },
    );
    // A test file ends by itself when nothing else runs, and stops the server then.
    server.unref();
    (server.stderr as Socket).unref();
    this.#process = server;
    // Whoever is ended from outside leaves no server behind; SIGTERM comes to this by way of running-program-fixture.ts.
    const endWithThis = () => server.kill("SIGQUIT");
    process.once("exit", endWithThis);
    server.once("close", () => process.off("exit", endWithThis));
    const lines: string[] = [];
    const awake = setInterval(() => undefined, 60_000);
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: server.stderr }).on("line", (line) => {
        if (lines.length < 50) lines.push(line);
        if (line.includes("ready to accept connections")) resolve();
      });
      server.once("error", reject);
      server.once("close", () => reject(new Error(`postgres ended:\n${lines.join("\n")}`)));
    }).finally(() => clearInterval(awake));
  }

  /** SIGINT: fast shutdown; SIGQUIT: as after a crash. */
  async halt(signal: "SIGINT" | "SIGQUIT" = "SIGINT"): Promise<void> {
    const server = this.#process;
    if (server === undefined || server.exitCode !== null || server.signalCode !== null) return;
    server.ref();
    const closed = once(server, "close");
    server.kill(signal);
    await closed;
  }

  /** Ends it and takes its folder away. */
  async stop(): Promise<void> {
    await this.halt("SIGQUIT");
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  /** Runs SQL that gives nothing back. */
  run(database: string, sql: string): void {
    queryNow(this, database, sql);
  }

  createDatabase(name: string): string {
    this.run("postgres", `CREATE DATABASE ${name}`);
    return postgresUrl(this, name);
  }
}
