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
  /** Closes; resolves when the descriptor is gone, at once when it already is. Never rejects. */
  close(): Promise<void>;
}
