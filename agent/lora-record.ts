/** What the LoRaWAN uplink needs of the rest of the agent: records to send, and word of those that are stored. */

export interface LoraRecord {
  readonly epoch: number;
  readonly sequence: number;
  /** The bare COSE_Sign1: no tag, no kid, not encrypted. */
  readonly bytes: Uint8Array;
}

export interface LoraRecordSource {
  /**
   * The next record that waits: the newest batch of readings, else the oldest of all. Those for which `excluded` says true are on
   * their way, or not to be sent now. Undefined where none is left. Rejects where the wallet cannot be asked; it is asked again later.
   */
  next(excluded: (epoch: number, sequence: number) => boolean): Promise<LoraRecord | undefined>;
  /** Whether a receipt that the wallet verified names that record: it need never be sent again. */
  isStored(epoch: number, sequence: number): boolean;
  /** Calls the listener when there may be a new record, and when a verified receipt has named some. */
  onNews(listener: () => void): void;
}
