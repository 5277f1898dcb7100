/** Where the LoRaWAN uplink keeps what must outlive the process: airtime spent, transfers under way, the next join. */
import { readdir, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { replaceFileDurably } from "../platform/durable-file.ts";

export interface LoraStateStore {
  /** What was written last; undefined where nothing ever was. Rejects with what the system says. */
  read(): Promise<Uint8Array | undefined>;
  /** Durable once it resolves. Rejects with what the system says; what was there before is there still. */
  write(bytes: Uint8Array): Promise<void>;
}

const fileName = "lora-state.bin";

/** In a file of that folder, which must be there. */
export function createFileStateStore(folder: string): LoraStateStore {
  const file = path.join(folder, fileName);
  return {
    async read() {
      try {
        await removeAsides(folder);
        return await readFile(file);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
        throw error;
      }
    },
    write: (bytes) => replaceFileDurably(file, bytes, 0o600),
  };
}

/** Of a process that died in the middle of a write: each would leave one. */
async function removeAsides(folder: string): Promise<void> {
  const names = await readdir(folder);
  for (const name of names.filter((other) => other.startsWith(`${fileName}.new-`)))
    await rm(path.join(folder, name), { force: true }).catch(() => undefined); // read-only: a write will say so
}
