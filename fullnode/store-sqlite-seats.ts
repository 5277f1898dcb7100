/** Records of a transaction of the embedded store, and their digests for the ledger: gathered, and written many a statement. */
import type { SqlStatements, SqlValue } from "./sql-statements.ts";
import type { NewSeat } from "./store.ts";

const columns = 9;
const seatsPerStatement = 16;
const row = `(${Array(columns).fill("?").join(", ")})`;
const addOne = `INSERT INTO records VALUES ${row}`;
const addMany = `INSERT INTO records VALUES ${Array(seatsPerStatement).fill(row).join(", ")}`;
const queueOne = "INSERT INTO ledger_queue (digest) VALUES (?)";
const queueMany = `INSERT INTO ledger_queue (digest) VALUES ${Array(seatsPerStatement).fill("(?)").join(", ")}`;

export class SqliteSeats {
  readonly #sql: SqlStatements;
  /** Values of the rows, one after the other. */
  #values: SqlValue[] = [];
  #digests: Uint8Array[] = [];

  constructor(sql: SqlStatements) {
    this.#sql = sql;
  }

  /** Adds a record; it can be read once {@link flush} was called. */
  add(device: number, epoch: number, seat: NewSeat): void {
    const { sequence, predecessor, digest, previous, settled, receivedMs, bytes } = seat;
    this.#values.push(device, epoch, sequence, predecessor, digest, previous, settled ? 1 : 0, receivedMs, bytes);
    this.#digests.push(digest);
    if (this.#digests.length < seatsPerStatement) return;
    this.#sql.run(addMany, ...this.#values);
    this.#sql.run(queueMany, ...this.#digests);
    this.forget();
  }

  /** Writes what was gathered. */
  flush(): void {
    if (this.#digests.length === 0) return;
    for (let i = 0; i < this.#values.length; i += columns) this.#sql.run(addOne, ...this.#values.slice(i, i + columns));
    for (const digest of this.#digests) this.#sql.run(queueOne, digest);
    this.forget();
  }

  /** Leaves what was gathered unwritten. */
  forget(): void {
    this.#values = [];
    this.#digests = [];
  }
}
