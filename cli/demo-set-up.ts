/** A whole small world in one folder: a hub's wallet and configuration, a full node, and each knowing the other's key. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, lstatSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import type { ModemFamily } from "../drivers/lora/modem.ts";
import { writeFileDurably } from "../platform/durable-file.ts";
import { simulatedApplications, simulatedDevice } from "../simulator/simulated-identities.ts";
import { CommandError, exit } from "./command.ts";
import { makeFolder } from "./output-file.ts";
import { type ProgramName, programCommand } from "./program-path.ts";

const journalSegments = 16;

export interface DemoWorld {
  readonly data: string;
  /** Whether `data` is a folder for temporary files, which goes at the end. */
  readonly temporary: boolean;
  /** Sockets lie in a folder with a short path of its own: a Unix socket's path has 107 bytes at most. */
  readonly sockets: string;
  readonly config: string;
  readonly walletFolder: string;
  readonly walletSocket: string;
  readonly passphraseFile: string;
  readonly nodeFolder: string;
  readonly meterLink: string;
  readonly brokerPort: number;
  /** Absent: the hub delivers over MQTT. */
  readonly lora?: DemoLora;
}

/** The simulated LoRaWAN of a demo. */
export interface DemoLora extends DemoRadio {
  readonly modemLink: string;
  readonly devEui: string;
  readonly applicationId: string;
  /** Of the network server's broker. */
  readonly serverPort: number;
}

/** What the user chooses of it; the other arguments go to `ecp-demo simulate lora` as they are. */
export interface DemoRadio {
  readonly family: ModemFamily;
  readonly server: "chirpstack" | "tts";
  readonly arguments: readonly string[];
}

/** Makes the world, or completes one that a run before left in `data`. Where that fails or `signal` aborts it is cleaned up. */
export async function setUpDemo(
  data: string | undefined,
  intervalS: number,
  radio: DemoRadio | undefined,
  signal: AbortSignal,
): Promise<DemoWorld> {
  if (data !== undefined) makeFolder(data);
  const folder = data === undefined ? mkdtempSync(join(tmpdir(), "ecp-demo-")) : resolve(data);
  const sockets = mkdtempSync(join(tmpdir(), "ecp-"));
  const world: DemoWorld = {
    data: folder,
    temporary: data === undefined,
    sockets,
    config: join(folder, "hub.yaml"),
    walletFolder: join(folder, "wallet"),
    walletSocket: join(sockets, "wallet.sock"),
    passphraseFile: join(folder, "wallet.passphrase"),
    nodeFolder: join(folder, "node"),
    meterLink: join(folder, "meter.tty"),
    brokerPort: await freePort(),
    ...(radio && {
      lora: {
        ...radio,
        modemLink: join(folder, "modem.tty"),
        devEui: simulatedDevice.devEui,
        applicationId: simulatedApplications[radio.server],
        serverPort: await freePort(),
      },
    }),
  };
  try {
    await completeWorld(world, intervalS, signal);
  } catch (error) {
    cleanUpDemo(world);
    throw error;
  }
  return world;
}

async function completeWorld(world: DemoWorld, intervalS: number, signal: AbortSignal): Promise<void> {
  const { data, walletFolder, nodeFolder, passphraseFile, config } = world;
  for (const link of linksOf(world))
    if (lstatSync(link, { throwIfNoEntry: false })?.isSymbolicLink() === false)
      throw new CommandError(exit.cannotCreate, {
        expected: "a symlink to a simulated device, or nothing yet",
        got: "something else is there; it was left as it is",
        where: link,
        todo: "move it away, or choose another --data",
      });
  writeFileSync(config, hubText(world, intervalS));
  if (!existsSync(passphraseFile))
    writeFileDurably(passphraseFile, `${randomBytes(24).toString("base64url")}\n`, 0o600);
  const run = (name: ProgramName, ...args: string[]): Promise<void> => runStep(world, signal, name, args);
  const secret = ["--passphrase-file", passphraseFile];
  if (!existsSync(join(walletFolder, "device.key")))
    await run("ecp-wallet", "init", "--data", walletFolder, ...secret, "--segments", `${journalSegments}`);
  await run("ecp", "config", "apply", "--config", config);
  if (!existsSync(join(nodeFolder, "node.key"))) await run("ecp-node", "init", "--data", nodeFolder, "--name", "demo");
  const request = join(data, "request.cose");
  const pinned = join(data, "pinned");
  const wasPinned = existsSync(pinned);
  if (!wasPinned) await run("ecp", "enrol", "--config", config, "--out", request);
  // A run before may have been without LoRaWAN: enrolling again only adds the modem.
  if (!wasPinned || world.lora !== undefined)
    await run(
      "ecp-node",
      ...["enrol", request, "--data", nodeFolder, "--out", `${request}.answer`],
      ...(world.lora ? ["--dev-eui", world.lora.devEui] : []),
    );
  if (wasPinned) return;
  await run("ecp", "pin", `${request}.answer`, "--config", config, "--yes");
  writeFileDurably(pinned, "", 0o644); // the last step: a set-up that was cut short before is completed by the next run
}

function linksOf({ meterLink, lora }: DemoWorld): readonly string[] {
  return lora ? [meterLink, lora.modemLink] : [meterLink];
}

/** Takes away what must not stay; what a run goes on from stays. */
export function cleanUpDemo(world: DemoWorld): void {
  rmSync(world.sockets, { recursive: true, force: true });
  if (world.temporary) rmSync(world.data, { recursive: true, force: true });
  else
    for (const link of linksOf(world))
      if (lstatSync(link, { throwIfNoEntry: false })?.isSymbolicLink()) rmSync(link, { force: true });
}

/** One command to its end, also when `signal` aborts meanwhile: what it has begun to write must not come after the cleaning up. */
async function runStep(
  world: DemoWorld,
  signal: AbortSignal,
  name: ProgramName,
  args: readonly string[],
): Promise<void> {
  signal.throwIfAborted();
  const { command, arguments: first } = programCommand(name);
  const env = { ...process.env, TMPDIR: world.sockets };
  try {
    await promisify(execFile)(command, [...first, ...args], { env });
  } catch (error) {
    signal.throwIfAborted(); // Ctrl-C at the terminal has ended it too
    const { stderr, code } = error as { stderr?: string; code?: number };
    throw new CommandError(typeof code === "number" ? code : exit.failed, {
      expected: `${name} ${args[0]} to succeed`,
      got: stderr?.trim() || (error as Error).message,
      where: first[0] ?? name,
      todo: "mend what it says; a fresh folder is made without --data",
    });
  }
}

/** A port that was free a moment ago; the full node keeps it through its restarts. */
function freePort(): Promise<number> {
  return new Promise((resolvePort, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolvePort(typeof address === "object" && address ? address.port : 0));
    });
  });
}

function hubText(world: DemoWorld, intervalS: number): string {
  const text = JSON.stringify;
  return `# The demo's hub: a simulated meter, a wallet, an agent; written anew at each start.
wallet:
  folder: wallet
  socket: ${text(world.walletSocket)}
  passphrase_file: wallet.passphrase
  seal_every_s: 0                   # each reading is sealed by itself, so that one can watch
agent:
  socket: ${text(join(world.sockets, "agent.sock"))}
lines:
  - name: demo
    serial: { path: ${text(world.meterLink)}, baud: 9600 }
meters:
  - { name: house, index: 0, line: demo, unit: 1, profile: eastron-sdm630, interval_s: ${intervalS} }
uplink:
${world.lora ? loraText(world.lora) : `  mqtt: { url: "mqtt://127.0.0.1:${world.brokerPort}" }\n`}`;
}

/** Far closer together than anybody would have it who waits for a meter's bill, so that there is something to watch. */
function loraText({ family, server, modemLink }: DemoLora): string {
  return `  lora:
    modem: { path: ${JSON.stringify(modemLink)}, family: ${family} }
    region: EU868
    slot_s: 10
    batch_s: 30
    rx1_delay_s: ${server === "tts" ? 5 : 1}
    state_folder: lora-state
`;
}
