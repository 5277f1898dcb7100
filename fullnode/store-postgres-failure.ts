/** What PostgreSQL's errors mean for a store (SQLSTATE: PostgreSQL's documentation, appendix A). */
import { NodeError, systemCode } from "./node-error.ts";

/** Another transaction was in the way: the same work may succeed at once. */
const conflicts = new Set(["40001", "40P01"]);

/**
 * Lock not available; out of disk, memory or connections; the server shuts down, has crashed or starts; somebody has ended a
 * statement or a session; the server may only be read, as a standby until it is promoted.
 */
const passingStates = new Set([
  ...["55P03", "53000", "53100", "53200", "53300", "57P01", "57P02", "57P03", "57P05", "57014"],
  ...["25P03", "25P04", "25006", "40003"],
]);

const passingSystemCodes = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ENOENT", // the socket of a server that is down
]);

/** As pg words a connection that ended; it gives these no code. */
const passingMessages =
  /^Connection terminated|^timeout exceeded when trying to connect|^Client has encountered a connection error|^Query read timeout/;

export function isConflict(error: unknown): boolean {
  return conflicts.has(systemCode(error) ?? "");
}

/** Whether the server is away, full or busy: the store is sound, and a later try may do. */
export function isPassingPostgresError(error: unknown): boolean {
  const code = systemCode(error);
  if (code !== undefined)
    return conflicts.has(code) || passingStates.has(code) || code.startsWith("08") || passingSystemCodes.has(code);
  return error instanceof Error && passingMessages.test(error.message);
}

/** What opening a store failed of, in words where a person can mend it. `where` holds no password. */
export function asPostgresNodeError(error: unknown, where: string): unknown {
  if (error instanceof NodeError || !(error instanceof Error)) return error;
  const code = systemCode(error);
  const got = error.message || code || "no answer";
  const expected = "a PostgreSQL server that lets this node in";
  if (code !== undefined && /^(28|42501)/.test(code))
    return new NodeError("store-refused", {
      expected,
      got,
      where,
      todo: "check the user, its password (PGPASSFILE, or --store-password-file at init), pg_hba.conf, and that it owns the database",
    });
  if (code === "3D000")
    return new NodeError("store-away", {
      expected,
      got,
      where,
      todo: "createdb makes the database; ecp-node makes its tables",
    });
  if (isPassingPostgresError(error) || /password/i.test(got))
    return new NodeError("store-away", {
      expected,
      got,
      where,
      todo: "check that the server runs, its address, and the password",
    });
  return error;
}
