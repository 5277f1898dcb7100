/** A disk of a few MiB that can be filled and emptied: a tmpfs of its own, which only root can mount. */
import { spawnSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import path from "node:path";
import type { Scene } from "./scene-fixture.ts";

/** Why small disks cannot be had here; false where they can. */
export const smallDiskMissing = process.getuid?.() === 0 ? false : "only root may mount a tmpfs";

export class SmallDisk {
  readonly folder: string;
  readonly #filler: string;

  constructor(scene: Scene, name: string, mebibytes: number) {
    this.folder = scene.path(name);
    this.#filler = path.join(this.folder, "filler");
    mkdirSync(this.folder);
    const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${mebibytes}m`, "tmpfs", this.folder]);
    if (mounted.status !== 0) throw new Error(`mount -t tmpfs ${this.folder}: ${mounted.stderr.toString()}`);
    scene.atEnd(() => {
      // Lazily: whoever still has a file open there is ended by the scene before, but may not have let go yet.
      spawnSync("umount", ["--lazy", this.folder]);
    });
  }

  /** Writes until no block is left. */
  fill(): void {
    const descriptor = openSync(this.#filler, "a");
    const block = Buffer.alloc(4_096, 1);
    try {
      for (;;) writeSync(descriptor, block);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    } finally {
      closeSync(descriptor);
    }
  }

  get freeBlocks(): number {
    return statfsSync(this.folder).bfree;
  }

  empty(): void {
    rmSync(this.#filler);
  }
}
