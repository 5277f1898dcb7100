/**
 * Hubs and full nodes for campaigns about copied cards: one hub and one node are made and introduced to each other, and each round has
 * fresh copies of both. The wallet and the node are the real processes.
 */
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { WalletClient } from "../agent/wallet-client.ts";
import { encodeCose } from "../protocol/cose-sign1.ts";
import { openEnrolmentAnswer } from "../protocol/enrolment.ts";
import { didKeyOf, multibaseOf } from "../protocol/public-key.ts";
import { decodeRecord, type RecordEvent, type Row } from "../protocol/record.ts";
import type { RunningProgram } from "../test/system/running-program-fixture.ts";
import { Scene } from "../test/system/scene-fixture.ts";
import { nodeVerify, sha256 } from "../test/vectors/signature-suite.ts";
import { Journal } from "../wallet/journal.ts";
import { deviceKeyOf, lockSeed } from "../wallet/keystore.ts";
import { PassphraseTries } from "../wallet/passphrase-tries.ts";
import { emptyPolicy, encodePolicy, type PinnedNode } from "../wallet/policy.ts";
import type { Campaign } from "./campaign.ts";
import { benchMeters } from "./wallet-peer.ts";

const cheap = { memoryKiB: 8, passes: 1, parallelism: 1 };
const segments = 3;
const passphrase = "a card that is copied\n";

/** A scene that ends with the round, and at the latest with the campaign. */
export async function inScene<T>(campaign: Campaign, body: (scene: Scene) => Promise<T>): Promise<T> {
  const endings: (() => unknown)[] = [];
  const scene = new Scene({ after: (ending) => endings.push(ending as () => unknown) });
  const end = async (): Promise<void> => {
    await endings.pop()?.();
  };
  campaign.after(end);
  try {
    return await body(scene);
  } finally {
    await end();
  }
}

export interface SealedRecord {
  readonly epoch: number;
  readonly sequence: number;
  /** As full nodes store them: without tag and kid. */
  readonly bytes: Uint8Array;
  /** Hexadecimal. */
  readonly digest: string;
}

export function sealedRecord(bytes: Uint8Array): SealedRecord {
  const { content, digest, cose } = decodeRecord(bytes, sha256);
  const { protectedHeader, payload, signature } = cose;
  const stored = encodeCose({ protectedHeader, payload, signature });
  const { epoch, sequence } = content;
  return { epoch, sequence, bytes: stored, digest: Buffer.from(digest).toString("hex") };
}

/** The events of a record; none where it holds rows. */
export function eventsOf(bytes: Uint8Array | undefined): readonly RecordEvent[] {
  if (bytes === undefined) return [];
  const { content } = decodeRecord(bytes, sha256);
  return content.kind === "event" ? content.events : [];
}

/** A wallet's folder, with the process that runs on it. */
export class Card {
  readonly scene: Scene;
  readonly folder: string;
  readonly #key: readonly string[];
  /** Beside the folder: it is no part of an image. */
  readonly #socket: string;
  #process: RunningProgram | undefined;
  #client: WalletClient | undefined;

  /** `key`: options that the wallet opens its key with; else its passphrase's file. */
  constructor(scene: Scene, folder: string, key?: readonly string[]) {
    this.scene = scene;
    this.folder = folder;
    this.#key = key ?? ["--passphrase-file", path.join(folder, "passphrase")];
    this.#socket = `${folder}.sock`;
  }

  /** Makes the folder of a new device. */
  static make(scene: Scene, folder: string, seed: Uint8Array, epoch: number): { card: Card; publicKey: Uint8Array } {
    mkdirSync(folder, { mode: 0o700 });
    Journal.create(path.join(folder, "journal"), epoch, segments);
    writeFileSync(path.join(folder, "passphrase"), passphrase, { mode: 0o600 });
    const key = lockSeed(seed, Buffer.from(passphrase.trim()), cheap);
    writeFileSync(path.join(folder, "device.key"), key, { mode: 0o600 });
    PassphraseTries.prepare(path.join(folder, "passphrase.tries"));
    const card = new Card(scene, folder);
    card.pin([]);
    return { card, publicKey: deviceKeyOf(seed).publicKey };
  }

  pin(nodes: readonly PinnedNode[]): void {
    const policy = { ...emptyPolicy, meters: benchMeters.slice(0, 2), nodes, sealEveryS: 0 };
    writeFileSync(path.join(this.folder, "policy.cbor"), encodePolicy(policy), { mode: 0o600 });
  }

  get client(): WalletClient {
    if (this.#client === undefined) throw new Error(`no wallet runs on ${this.folder}`);
    return this.#client;
  }

  /** Starts the process, whatever becomes of it. */
  run(): RunningProgram {
    const args = ["--data", this.folder, "--socket", this.#socket, ...this.#key, "--exit-with-parent"];
    this.#process = this.scene.start("ecp-wallet", "run", ...args);
    return this.#process;
  }

  /** Resolves when it answers. */
  async start(): Promise<void> {
    await this.run().event(({ message }) => message === "ready");
    this.#client = new WalletClient(this.#socket);
  }

  /** Ends the process; `killed`: as if the power went. */
  async stop(killed = false): Promise<void> {
    this.#client?.close();
    this.#client = undefined;
    if (killed) this.#process?.signal("SIGKILL");
    await (killed ? this.#process?.ending() : this.#process?.stop());
    this.#process = undefined;
  }

  /** Copies the folder to another place. */
  copyTo(folder: string): void {
    rmSync(folder, { recursive: true, force: true });
    cpSync(this.folder, folder, { recursive: true, filter: (file) => !file.endsWith(".lock") });
  }

  /** Puts the folder back from an image. */
  putBack(image: string): void {
    rmSync(this.folder, { recursive: true });
    cpSync(image, this.folder, { recursive: true });
  }

  /** Seals a row of each slot; gives the sequences. */
  async seal(timesS: readonly number[], offsetWh: number, meter = 0): Promise<number[]> {
    const sequences: number[] = [];
    for (const timeS of timesS) {
      const row: Row = { timeS, status: 0, values: [energyAt(timeS) + offsetWh, 1_000] };
      const answer = await this.client.seal({ meter, plan: 0, slotS: 1, codes: [2, 4], rows: [row] });
      sequences.push(...answer.sequences);
    }
    return sequences;
  }

  /** All that the ring still holds of these epochs. */
  async records(epochs: readonly number[]): Promise<SealedRecord[]> {
    const found: SealedRecord[] = [];
    for (const epoch of epochs)
      for (let from = 1; ; ) {
        const { records } = await this.client.read(from, 0xffff_ffff, epoch);
        found.push(...records.map(([, bytes]) => sealedRecord(bytes)));
        const last = records.at(-1);
        if (last === undefined) break;
        from = last[0] + 1;
      }
    return found;
  }
}

/** A copy of a card that nobody runs on. */
export function twinOf(card: Card, folder: string): Card {
  card.copyTo(folder);
  return new Card(card.scene, folder);
}

/** What the meter would show. */
function energyAt(timeS: number): number {
  return timeS - 1_700_000_000;
}

/** A running full node. */
export class NodePeer {
  readonly folder: string;
  readonly port: number;
  readonly process: RunningProgram;

  private constructor(folder: string, port: number, process: RunningProgram) {
    this.folder = folder;
    this.port = port;
    this.process = process;
  }

  static async start(scene: Scene, folder: string): Promise<NodePeer> {
    const args = ["--data", folder, "--listen", "127.0.0.1:0", "--json", "--exit-with-parent"];
    const node = scene.start("ecp-node", "run", ...args);
    const { broker } = await node.event<{ broker: string }>(({ event }) => event === "started");
    await node.event(({ event }) => event === "connected");
    return new NodePeer(folder, Number(new URL(broker).port), node);
  }
}

/** A hub and a node that know each other, from which each round has copies. */
export class Pair {
  /** did:key of the device. */
  readonly device: string;
  /** Its multibase part, which topics name. */
  readonly name: string;
  readonly #wallet: string;
  readonly #node: string;

  private constructor(publicKey: Uint8Array, wallet: string, node: string) {
    this.device = didKeyOf(publicKey);
    this.name = multibaseOf(publicKey);
    this.#wallet = wallet;
    this.#node = node;
  }

  static async make(scene: Scene, { random }: Campaign): Promise<Pair> {
    const [wallet, node] = [scene.path("base-wallet"), scene.path("base-node")];
    const { card, publicKey } = Card.make(scene, wallet, random.bytes(32), random.uint32());
    await card.start();
    const request = scene.path("request.cose");
    writeFileSync(request, await card.client.enrol());
    await card.stop();
    await scene.succeed("ecp-node", "init", "--data", node, "--name", "node");
    await scene.succeed("ecp-node", "enrol", request, "--data", node);
    const answer = openEnrolmentAnswer(new Uint8Array(readFileSync(`${request}.answer`)), nodeVerify);
    card.pin([{ name: answer.nodeName, publicKey: answer.publicKey, share: answer.share }]);
    return new Pair(publicKey, wallet, node);
  }

  card(scene: Scene, name = "card"): Card {
    cpSync(this.#wallet, scene.path(name), { recursive: true });
    return new Card(scene, scene.path(name));
  }

  async node(scene: Scene): Promise<NodePeer> {
    cpSync(this.#node, scene.path("node"), { recursive: true });
    return await NodePeer.start(scene, scene.path("node"));
  }
}
