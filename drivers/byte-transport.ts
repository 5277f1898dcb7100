/** A two-way stream of bytes with a peer at the far end: a serial port or a TCP connection, already open. */
export interface ByteTransport {
  /** Where it leads, for messages: `/dev/ttyUSB0 at 9600 8N1`, `192.168.1.9:502`. */
  readonly description: string;
  /** Hands all the bytes to the operating system. Rejects with a DriverError (`port-lost`) when the far end is gone. */
  write(bytes: Uint8Array): Promise<void>;
  /** Registers the one listener of incoming bytes; pieces come as the driver gives them, never whole frames by promise. */
  onData(listener: (bytes: Uint8Array) => void): void;
  /** Registers the one listener of the end. `error` is absent when close() caused it. Called at most once. */
  onClosed(listener: (error?: Error) => void): void;
  /**
   * A hint: the next `bytes` bytes to come are one answer and need at least `characterMs` each. Once its first bytes are there the
   * transport may rest until the others can be, instead of waking for every few of them; a write ends the hint.
   */
  expect?(bytes: number, characterMs: number): void;
  /**
   * False when what was opened is gone though no event said so: the path leads to another device, or to none. To be asked after a
   * time-out. Never rejects.
   */
  isCurrent?(): Promise<boolean>;
  /** Closes; resolves when the descriptor is gone, at once when it already is. Never rejects. */
  close(): Promise<void>;
}
