/** The peers of the power cuts: engines that are known to lose what they acknowledged, and how many rows of theirs survive. */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";

export interface ControlEngine {
  readonly name: string;
  open(folder: string): { write(row: number): void; close(): void };
  /** How many of the rows 1 to `answers` are there, whatever else is. */
  survivors(folder: string, answers: number): number;
}

const rowBytes = 300;

/** SQLite as node:sqlite opens it: a rollback journal that is deleted at each commit, synchronous FULL. */
const sqliteDelete: ControlEngine = {
  name: "sqliteDelete",
  open(folder) {
    const database = new DatabaseSync(path.join(folder, "rows.db"));
    database.exec("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL)");
    const insert = database.prepare("INSERT INTO rows VALUES (?, ?)");
    const bytes = Buffer.alloc(rowBytes, 1);
    return { write: (row) => void insert.run(row, bytes), close: () => database.close() };
  },
  survivors(folder, answers) {
    try {
      const database = new DatabaseSync(path.join(folder, "rows.db"));
      try {
        const { n } = database.prepare("SELECT count(*) AS n FROM rows WHERE id <= ?").get(answers) as { n: number };
        return n;
      } finally {
        database.close();
      }
    } catch {
      return 0; // it does not even open
    }
  },
};

const rowsPerSync = 40;

/** A file that grows and is synced now and then, as a broker's autosave does, with the answers given before. */
const lazilySyncedLog: ControlEngine = {
  name: "lazilySyncedLog",
  open(folder) {
    const descriptor = openSync(path.join(folder, "rows.log"), "a");
    return {
      write: (row) => {
        writeSync(descriptor, `${row}`.padEnd(rowBytes - 1).concat("\n"));
        if (row % rowsPerSync === 0) fsyncSync(descriptor);
      },
      close: () => closeSync(descriptor),
    };
  },
  survivors(folder, answers) {
    const file = path.join(folder, "rows.log");
    if (!existsSync(file)) return 0;
    const lines = readFileSync(file, "latin1").split("\n");
    return lines.filter((line) => Number(line) >= 1 && Number(line) <= answers).length;
  },
};

export const controlEngines: readonly ControlEngine[] = [sqliteDelete, lazilySyncedLog];
