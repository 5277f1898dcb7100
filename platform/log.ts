/** Structured log: one JSON object a line, to stderr unless told otherwise. Callers never pass secrets or whole messages. */

export type LogLevel = "info" | "warn" | "error";
export type LogFields = Record<string, string | number | boolean | undefined>;

export interface Log {
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

export function createLog(
  part: string,
  write: (line: string) => void = (line) => {
    process.stderr.write(`${line}\n`);
  },
): Log {
  const at =
    (level: LogLevel) =>
    (message: string, fields: LogFields = {}) => {
      const own = { time: new Date().toISOString(), level, part, message };
      write(JSON.stringify({ ...own, ...fields, ...own })); // in this order, and no field takes the place of ours
    };
  return { info: at("info"), warn: at("warn"), error: at("error") };
}
