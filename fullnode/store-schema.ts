import type { DatabaseSync } from "node:sqlite";
import { moveRowsOfVersionTwo } from "./store-sqlite-migration.ts";

interface Migration {
  readonly sql: string;
  /** What follows it and SQL alone cannot say. */
  readonly move: (database: DatabaseSync) => void;
}

/**
 * The tables of the embedded store, one migration after the other; a released migration is never changed.
 * Times are Unix milliseconds of the node's clock (`…_ms`) or seconds of the device's (`…_s`).
 */
export const migrations: readonly (string | Migration)[] = [
  `
  CREATE TABLE devices (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    public_key BLOB NOT NULL,
    kid BLOB NOT NULL,
    share BLOB NOT NULL,
    software TEXT NOT NULL,
    meters TEXT NOT NULL,
    request BLOB NOT NULL,
    request_digest BLOB NOT NULL,
    enrolled_ms INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE epochs (
    device INTEGER NOT NULL REFERENCES devices (id),
    epoch INTEGER NOT NULL,
    held INTEGER NOT NULL,
    -- The span from sequence 1 on; 0: there is none.
    through INTEGER NOT NULL DEFAULT 0,
    through_digest BLOB,
    settled_through INTEGER NOT NULL DEFAULT 0,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    -- The last one given, written before it was sent.
    receipt BLOB,
    PRIMARY KEY (device, epoch)
  ) STRICT, WITHOUT ROWID;

  -- Sequences without a gap, but not from 1 on; derived from records and voids, and kept in the same transaction.
  CREATE TABLE spans (
    device INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (device, epoch, first)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE records (
    device INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    predecessor INTEGER NOT NULL,
    digest BLOB NOT NULL,
    previous BLOB NOT NULL,
    settled INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (device, epoch, sequence)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE voids (
    device INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (device, epoch, first, last)
  ) STRICT, WITHOUT ROWID;

  -- A value counts once: the key is (device, meter, clock generation, time).
  CREATE TABLE rows (
    device INTEGER NOT NULL,
    meter INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    time_s INTEGER NOT NULL,
    slot_s INTEGER NOT NULL,
    status INTEGER NOT NULL,
    booked INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (device, meter, generation, time_s)
  ) STRICT, WITHOUT ROWID;

  -- Signed by the device, and contradicting its own chain.
  CREATE TABLE evidence (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    digest BLOB NOT NULL,
    reason TEXT NOT NULL,
    received_ms INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    UNIQUE (device, epoch, sequence, digest)
  ) STRICT;

  -- Signed by the key that the topic names, which nobody has enrolled yet.
  CREATE TABLE quarantine (
    name TEXT NOT NULL,
    digest BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (name, digest)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE ledger_queue (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL
  ) STRICT;
  `,
  `
  -- The key that the device signs with now; public_key stays that of its name.
  ALTER TABLE devices ADD COLUMN current_key BLOB NOT NULL DEFAULT x'';
  UPDATE devices SET current_key = public_key;

  -- The one key of the epoch's records.
  ALTER TABLE epochs ADD COLUMN public_key BLOB NOT NULL DEFAULT x'';
  UPDATE epochs SET public_key = (SELECT public_key FROM devices WHERE id = device);
  -- What the owner said: 'none', 'accepted', 'rejected'.
  ALTER TABLE epochs ADD COLUMN decision TEXT NOT NULL DEFAULT 'none';
  UPDATE epochs SET decision = 'accepted' WHERE held = 0;
  -- The rotation record that announced the epoch.
  ALTER TABLE epochs ADD COLUMN parent_epoch INTEGER;
  ALTER TABLE epochs ADD COLUMN parent_sequence INTEGER;
  -- The settled record that says that it is the epoch's last one.
  ALTER TABLE epochs ADD COLUMN ended INTEGER;

  -- Sequences that a wallet overwrote, as the record (by_epoch, by_sequence) declares.
  CREATE TABLE drops (
    device INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    by_epoch INTEGER NOT NULL,
    by_sequence INTEGER NOT NULL,
    PRIMARY KEY (device, epoch, by_epoch, by_sequence, last)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX drops_by ON drops (device, by_epoch, by_sequence);
  `,
  {
    sql: `
  -- As rows, with the values packed (row-packing.ts).
  CREATE TABLE packed_rows (
    device INTEGER NOT NULL,
    meter INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    time_s INTEGER NOT NULL,
    slot_s INTEGER NOT NULL,
    status INTEGER NOT NULL,
    booked INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (device, meter, generation, time_s)
  ) STRICT, WITHOUT ROWID;

  -- Quarter hours: what their booked rows make together, kept in the same transaction (aggregate.ts, packed by row-packing.ts).
  CREATE TABLE slots (
    device INTEGER NOT NULL,
    meter INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    end_s INTEGER NOT NULL,
    -- How often it changed more than an hour after its end, its first row included.
    revision INTEGER NOT NULL,
    summary BLOB NOT NULL,
    PRIMARY KEY (device, meter, generation, end_s)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE corrections (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL,
    meter INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    end_s INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    before BLOB NOT NULL,
    after BLOB NOT NULL
  ) STRICT;
  CREATE INDEX corrections_of ON corrections (device, id);

  -- Settled records that say that a meter was exchanged.
  CREATE TABLE exchanges (
    device INTEGER NOT NULL,
    meter INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    time_s INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    installation INTEGER NOT NULL,
    PRIMARY KEY (device, meter, generation, time_s, epoch, sequence)
  ) STRICT, WITHOUT ROWID;
  `,
    move: moveRowsOfVersionTwo,
  },
  `
  -- LoRaWAN: the modems of devices, and what is remembered of their frames (store-lorawan.ts).
  CREATE TABLE lorawan_devices (
    dev_eui TEXT PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES devices (id),
    bound_ms INTEGER NOT NULL,
    dev_addr TEXT NOT NULL DEFAULT '',
    -- The highest since the last join; -1: none.
    f_cnt INTEGER NOT NULL DEFAULT -1,
    joins INTEGER NOT NULL DEFAULT 0,
    last_ms INTEGER NOT NULL DEFAULT 0,
    receipt_ms INTEGER NOT NULL DEFAULT 0
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX lorawan_devices_of ON lorawan_devices (device);

  -- Packets whose fragments have come in part, or whose acknowledgement may be asked for again.
  CREATE TABLE lorawan_sessions (
    dev_eui TEXT NOT NULL,
    port INTEGER NOT NULL,
    state BLOB NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (dev_eui, port)
  ) STRICT, WITHOUT ROWID;

  -- What one node at a time may do.
  CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until_ms INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
];
