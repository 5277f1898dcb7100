/** Statements of one database, prepared once each. */
import type { DatabaseSync, SQLInputValue, SQLOutputValue, StatementSync } from "node:sqlite";

export type SqlValue = SQLInputValue;
export type SqlRow = Record<string, SQLOutputValue>;

export class SqlStatements {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  clear(): void {
    this.#statements.clear();
  }

  /** The number that a query selects as n. */
  count(sql: string, ...parameters: (number | string)[]): number {
    return this.get(sql, ...parameters)?.n as number;
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  get(sql: string, ...parameters: SQLInputValue[]): SqlRow | undefined {
    return this.#statement(sql).get(...parameters);
  }

  all(sql: string, ...parameters: SQLInputValue[]): SqlRow[] {
    return this.#statement(sql).all(...parameters);
  }

  run(sql: string, ...parameters: SQLInputValue[]): void {
    this.#statement(sql).run(...parameters);
  }

  /** Runs, and returns how many rows of the table were written. */
  written(sql: string, ...parameters: SQLInputValue[]): number {
    return this.#statement(sql).run(...parameters).changes as number;
  }
}
