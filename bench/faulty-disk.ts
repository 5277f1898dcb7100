/**
 * An ext4 on a disk that fails its writes while it is told to: nbdkit's error filter, nbdfuse and a loop device. Without ext4's own
 * journal, so that what fails is the write of the application alone, and the file system goes on when the disk does.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { Campaign } from "./campaign.ts";
import { run } from "./recorded-disk.ts";

const startTriesMax = 100;

export class FaultyDisk {
  readonly mount: string;
  readonly #trigger: string;
  readonly #loop: string;

  private constructor(mount: string, trigger: string, loop: string) {
    this.mount = mount;
    this.#trigger = trigger;
    this.#loop = loop;
  }

  static async make(campaign: Campaign, folder: string, mebibytes: number): Promise<FaultyDisk> {
    mkdirSync(folder, { recursive: true });
    const at = (name: string): string => path.join(folder, name);
    const socket = at("socket");
    const start = (command: string, ...args: string[]): void => {
      const child: ChildProcess = spawn(command, args, { stdio: "ignore" });
      campaign.after(async () => {
        const ended = new Promise((resolve) => child.once("exit", resolve));
        if (child.exitCode === null && child.signalCode === null && child.kill("SIGTERM")) await ended;
      });
    };
    const failing = ["error=EIO", "error-pwrite-rate=100%", `error-file=${at("failing")}`];
    start("nbdkit", "--foreground", "--unix", socket, "--filter=error", "memory", `${mebibytes}M`, ...failing);
    await thereIs(socket);
    mkdirSync(at("fuse"));
    start("nbdfuse", at("fuse"), `nbd+unix:///?socket=${socket}`);
    campaign.after(() => spawnSync("umount", [at("fuse")]));
    await thereIs(path.join(at("fuse"), "nbd"));
    const loop = run("losetup", "--find", "--show", path.join(at("fuse"), "nbd"));
    campaign.after(() => spawnSync("losetup", ["--detach", loop]));
    run("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^has_journal", loop);
    const mount = at("mount");
    mkdirSync(mount);
    const disk = new FaultyDisk(mount, at("failing"), loop);
    disk.#mount();
    campaign.after(() => spawnSync("umount", [mount]));
    return disk;
  }

  #mount(): void {
    run("mount", "-o", "noatime,lazytime", this.#loop, this.mount);
  }

  fail(): void {
    writeFileSync(this.#trigger, "");
  }

  cure(): void {
    rmSync(this.#trigger, { force: true });
  }

  /** Has the kernel write what it has not written yet; whether the disk takes it is nobody's care here. */
  sync(): void {
    spawnSync("sync", ["--file-system", this.mount]);
  }

  /** Forgets what only the kernel's cache holds: what is there afterwards is what the disk has. */
  remount(): void {
    run("umount", this.mount);
    this.#mount();
  }

  readOnly(isReadOnly: boolean): void {
    run("mount", "-o", `remount,${isReadOnly ? "ro" : "rw"}`, this.mount);
  }
}

async function thereIs(file: string): Promise<void> {
  for (let tries = 0; !existsSync(file); tries++) {
    if (tries === startTriesMax) throw new Error(`${file} did not come`);
    await pause(100);
  }
}
