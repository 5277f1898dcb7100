/** What can go wrong around the full node that a person can mend: a closed list of codes, and the four things to say. */

export type NodeErrorCode =
  | "data-missing"
  | "data-exists"
  | "data-in-use"
  | "data-not-writable"
  | "key-missing"
  | "key-permissions"
  | "key-damaged"
  | "store-damaged"
  | "store-newer"
  | "store-away"
  | "backup-damaged"
  | "store-refused"
  | "store-not-durable"
  | "address-in-use"
  | "address-not-available"
  | "address-not-permitted";

export interface NodeErrorText {
  readonly expected: string;
  readonly got: string;
  readonly where: string;
  readonly todo: string;
}

export class NodeError extends Error {
  readonly code: NodeErrorCode;
  readonly text: NodeErrorText;

  constructor(code: NodeErrorCode, text: NodeErrorText) {
    super(`expected ${text.expected}, got ${text.got} (${text.where})`);
    this.name = "NodeError";
    this.code = code;
    this.text = text;
  }
}

/** The code of an operating system's error (`ENOENT`, `EADDRINUSE`); undefined for any other error. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

/** What a person is told when an address cannot be listened on; any other error stays as it is. */
export function addressError(error: unknown, host: string, port: number, option: "listen" | "metrics"): unknown {
  const where = `${host}:${port}`;
  const what = option === "listen" ? "the broker" : "the metrics";
  switch (systemCode(error)) {
    case "EADDRINUSE":
      return new NodeError("address-in-use", {
        expected: `a free port for ${what}`,
        got: "a port on which another program listens (another broker, such as mosquitto, or another node?)",
        where,
        todo: `see which one: ss -ltnp 'sport = :${port}'; stop it, or choose another port with --${option} ${host}:PORT${option === "listen" ? `, or use that broker with --broker mqtt://${where}` : ""}`,
      });
    case "EACCES":
      return new NodeError("address-not-permitted", {
        expected: "a port that this user may listen on",
        got: "permission denied (ports below 1024 need a privilege)",
        where,
        todo: `choose a port above 1023: --${option} ${host}:${option === "listen" ? 1883 : 9464}`,
      });
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return new NodeError("address-not-available", {
        expected: "an address of this machine",
        got: "an address that it does not have",
        where,
        todo: "use 127.0.0.1 for this machine alone, 0.0.0.0 for all its addresses",
      });
    default:
      return error;
  }
}
