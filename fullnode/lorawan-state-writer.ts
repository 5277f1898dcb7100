/** Writes what is known of modems and sessions into the store: soon after it changed, what comes together in one transaction. */
import type { Log } from "../platform/log.ts";
import type { Modem } from "./lorawan-modems.ts";
import type { LorawanSessions } from "./lorawan-sessions.ts";
import type { LorawanStore } from "./store-lorawan.ts";

/** Answers go out before it; what is lost with a process is asked for again. */
const saveAfterMs = 100;

/** Does something later; what it returns calls it off. */
export type After = (ms: number, work: () => void) => () => void;

export class LorawanStateWriter {
  readonly #store: Pick<LorawanStore, "save">;
  readonly #sessions: LorawanSessions;
  readonly #after: After;
  readonly #log: Log;
  readonly #changedModems = new Set<Modem>();
  #cancelSave: (() => void) | undefined;
  #saving: Promise<void> | undefined;
  #saveFailed = false;
  #stopped = false;

  constructor(store: Pick<LorawanStore, "save">, sessions: LorawanSessions, log: Log, after: After = later) {
    this.#store = store;
    this.#sessions = sessions;
    this.#log = log;
    this.#after = after;
  }

  modemChanged(modem: Modem): void {
    this.#changedModems.add(modem);
    this.soon();
  }

  /** Something of the sessions has changed. */
  soon(): void {
    if (this.#stopped) return;
    this.#cancelSave ??= this.#after(saveAfterMs, () => void this.save());
  }

  /** Writes what has changed; what cannot be written now is written with what changes next. */
  async save(): Promise<void> {
    this.#cancelSave?.();
    this.#cancelSave = undefined;
    while (this.#saving) await this.#saving;
    if (this.#stopped || (this.#changedModems.size === 0 && !this.#sessions.hasChanges)) return;
    this.#saving = this.#write().finally(() => {
      this.#saving = undefined;
    });
    await this.#saving;
  }

  async #write(): Promise<void> {
    const modems = [...this.#changedModems];
    this.#changedModems.clear();
    const changes = this.#sessions.takeChanges();
    const counters = modems.map(({ devEui, devAddr, fCnt, joins, lastMs, receiptMs }) => ({
      ...{ devEui, devAddr, fCnt, joins, lastMs, receiptMs },
    }));
    try {
      await this.#store.save({ counters, ...changes });
      this.#saveFailed = false;
    } catch (error) {
      for (const modem of modems) this.#changedModems.add(modem);
      this.#sessions.giveBack(changes);
      if (!this.#saveFailed)
        this.#log.error("sessions of fragments could not be saved", {
          got: (error as Error).message,
          todo: "look at the store; after a restart devices send again what was not saved",
        });
      this.#saveFailed = true;
    }
  }

  /** Writes nothing more. */
  stop(): void {
    this.#stopped = true;
    this.#cancelSave?.();
    this.#cancelSave = undefined;
  }
}

function later(ms: number, work: () => void): () => void {
  const timer = setTimeout(work, ms).unref();
  return () => clearTimeout(timer);
}
