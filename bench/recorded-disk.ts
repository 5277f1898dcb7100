/**
 * An ext4 on a disk that records every write and flush, and the disks that a power cut could have left behind. Needs root, nbdkit
 * with its Python plugin, nbdfuse, losetup: Debian's nbdkit, nbdkit-plugin-python, libnbd-bin, fuse3.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { type Campaign, Missing } from "./campaign.ts";

export const diskBytes = 64 * 1024 * 1024;
const sectorBytes = 512;
const entryBytes = 24;

export function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8" });
  if (error) throw new Missing(`${command} is not there: ${error.message}`);
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr || stdout || `exit ${status}`}`);
  return stdout.trim();
}

export function demandRootAnd(...commands: readonly string[]): void {
  if (process.getuid?.() !== 0) throw new Missing("needs root: it mounts file systems");
  for (const command of commands)
    if (spawnSync("which", [command]).status !== 0) throw new Missing(`${command} is missing`);
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  for (let tries = 0; !isSo(); tries++) {
    if (tries > 300) throw new Error(`after 30 s still not so: ${what}`);
    await pause(100);
  }
}

/** A mounted ext4 whose disk is recorded from {@link record} on. */
export class RecordedDisk {
  readonly mount: string;
  readonly #folder: string;
  readonly #control: number;

  private constructor(folder: string) {
    this.#folder = folder;
    this.mount = path.join(folder, "mount");
    writeFileSync(path.join(folder, "control"), Buffer.alloc(8));
    this.#control = openSync(path.join(folder, "control"), "r+");
  }

  static async make(campaign: Campaign, folder: string): Promise<RecordedDisk> {
    mkdirSync(folder, { recursive: true });
    const disk = new RecordedDisk(folder);
    await disk.#start(campaign);
    return disk;
  }

  async #start(campaign: Campaign): Promise<void> {
    const folder = this.#folder;
    const at = (name: string): string => path.join(folder, name);
    const plugin = path.join(import.meta.dirname, "recording-disk.py");
    const parameters = [`size=${diskBytes}`, `control=${at("control")}`, `log=${at("log")}`, `base=${at("base")}`];
    const started: ChildProcess[] = [];
    const start = (command: string, args: string[]): ChildProcess => {
      const child = spawn(command, args, { stdio: ["ignore", "ignore", "inherit"] });
      started.push(child);
      campaign.after(async () => {
        if (child.exitCode === null) child.kill("SIGTERM");
        await until(`${command} ended`, () => child.exitCode !== null || child.signalCode !== null);
      });
      return child;
    };
    start("nbdkit", ["--foreground", "--unix", at("socket"), "python", plugin, ...parameters]);
    await until("nbdkit listens", () => existsSync(at("socket")));
    mkdirSync(at("fuse"));
    start("nbdfuse", [at("fuse"), `nbd+unix:///?socket=${at("socket")}`]);
    campaign.after(() => spawnSync("umount", [at("fuse")]));
    await until("nbdfuse shows its file", () => existsSync(path.join(at("fuse"), "nbd")));
    const loop = run("losetup", "--find", "--show", path.join(at("fuse"), "nbd"));
    campaign.after(() => spawnSync("losetup", ["--detach", loop]));
    run("mkfs.ext4", "-q", "-F", "-b", "4096", loop);
    mkdirSync(this.mount);
    run("mount", loop, this.mount);
    campaign.after(() => spawnSync("umount", ["--lazy", this.mount]));
  }

  /** From now on everything is recorded. */
  record(): void {
    run("sync", "--file-system", this.mount);
    this.#set(0, 1);
    // One write, so that there is a first entry even where the application's own never leave the page cache.
    writeFileSync(path.join(this.mount, "begun"), "", { flush: true });
  }

  /** The application has answered so many requests. */
  answered(count: number): void {
    this.#set(4, count);
  }

  stop(): Recording {
    this.#set(0, 0);
    return new Recording(path.join(this.#folder, "base"), path.join(this.#folder, "log"));
  }

  close(): void {
    closeSync(this.#control);
  }

  #set(offset: number, value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    writeSync(this.#control, bytes, 0, 4, offset);
  }
}

interface Entry {
  readonly isFlush: boolean;
  readonly answers: number;
  readonly offset: number;
  readonly data: Buffer;
}

/** What a power cut does to the writes that no flush has covered: they are lost, cut at a sector, or become noise. */
export const cutModels = ["drop", "tear", "garbage"] as const;
export type CutModel = (typeof cutModels)[number];

export interface Cut {
  readonly image: Buffer;
  /** Answers that the application had given before. */
  readonly answers: number;
  /** What the writes under way changed on the disk: bytes as they were meant to be written. */
  readonly traces: readonly Buffer[];
}

export class Recording {
  readonly #base: Buffer;
  readonly #entries: Entry[] = [];
  /** The disk with everything up to an entry: cuts are asked for in ascending order. */
  readonly #image: Buffer;
  #applied = 0;

  constructor(base: string, log: string) {
    this.#base = readFileSync(base);
    this.#image = Buffer.from(this.#base);
    const bytes = readFileSync(log);
    for (let at = 0; at < bytes.length; ) {
      const length = bytes.readUInt32LE(at + 16);
      this.#entries.push({
        isFlush: bytes[at] === 2,
        answers: bytes.readUInt32LE(at + 4),
        offset: Number(bytes.readBigUInt64LE(at + 8)),
        data: bytes.subarray(at + entryBytes, at + entryBytes + length),
      });
      at += entryBytes + length;
    }
  }

  get length(): number {
    return this.#entries.length;
  }
  /** Where a cut meets writes that no flush has covered yet. */
  get busyPlaces(): readonly number[] {
    return this.#entries.flatMap(({ isFlush }, index) => (isFlush ? [] : [index + 1]));
  }
  get flushes(): number {
    return this.#entries.filter(({ isFlush }) => isFlush).length;
  }

  /** The disk after a cut before entry `at`; `at` never falls from one call to the next. */
  cut(at: number, model: CutModel, random: SeededRandom, answersAtEnd: number): Cut {
    const flush = this.#entries.findLastIndex(({ isFlush }, index) => isFlush && index < at);
    for (; this.#applied <= flush; this.#applied++) {
      const { isFlush, offset, data } = this.#entries[this.#applied] as Entry;
      if (!isFlush) data.copy(this.#image, offset);
    }
    const image = Buffer.from(this.#image);
    const traces: Buffer[] = [];
    for (const { offset, data } of this.#entries.slice(flush + 1, at)) {
      const fate = random.integer(0, 2);
      if (fate === 0) continue;
      data.copy(image, offset);
      if (fate === 1 || model === "drop") {
        traces.push(data);
        continue;
      }
      // Sectors arrive in any order; or the block that was being written is noise.
      for (let sector = 0; sector < data.length; sector += sectorBytes) {
        if (random.chance(50)) continue;
        const end = Math.min(sector + sectorBytes, data.length);
        if (model === "tear") this.#image.copy(image, offset + sector, offset + sector, offset + end);
        else Buffer.from(random.bytes(end - sector)).copy(image, offset + sector);
      }
      if (!image.subarray(offset, offset + data.length).equals(this.#image.subarray(offset, offset + data.length)))
        traces.push(data);
    }
    return { image, answers: this.#entries[at]?.answers ?? answersAtEnd, traces };
  }
}
