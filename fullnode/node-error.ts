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
