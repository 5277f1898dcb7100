/**
 * The tables of the store on PostgreSQL, one migration after the other; a released migration is never changed. Names and columns
 * are those of the embedded store, flags are 0 and 1 as there. Times are Unix milliseconds of the node's clock (`…_ms`) or seconds
 * of the device's (`…_s`).
 */
export const postgresMigrations: readonly string[] = [
  `
  CREATE TABLE devices (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    public_key bytea NOT NULL,
    kid bytea NOT NULL,
    current_key bytea NOT NULL,
    share bytea NOT NULL,
    software text NOT NULL,
    meters text NOT NULL,
    request bytea NOT NULL,
    request_digest bytea NOT NULL,
    enrolled_ms bigint NOT NULL
  );

  -- Whoever changes a device holds its row here until the end of the transaction, and counts it up: so other nodes know that
  -- what they remember of it is old. Half of each page stays free, so that counting up touches no index.
  CREATE TABLE device_versions (
    device integer PRIMARY KEY REFERENCES devices (id),
    version bigint NOT NULL
  ) WITH (fillfactor = 50);

  CREATE TABLE epochs (
    device integer NOT NULL REFERENCES devices (id),
    epoch bigint NOT NULL,
    public_key bytea NOT NULL DEFAULT '',
    held smallint NOT NULL,
    decision text NOT NULL DEFAULT 'none',
    parent_epoch bigint,
    parent_sequence bigint,
    ended bigint,
    through bigint NOT NULL DEFAULT 0,
    through_digest bytea,
    settled_through bigint NOT NULL DEFAULT 0,
    first_ms bigint NOT NULL,
    last_ms bigint NOT NULL,
    receipt bytea,
    PRIMARY KEY (device, epoch)
  ) WITH (fillfactor = 70);
  CREATE INDEX epochs_to_settle ON epochs (device, epoch) WHERE held = 0 AND settled_through < through;

  CREATE TABLE spans (
    device integer NOT NULL,
    epoch bigint NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    digest bytea NOT NULL,
    PRIMARY KEY (device, epoch, first)
  );

  -- Not partitioned: the one place where a record is there once, whatever the times in it say.
  CREATE TABLE records (
    device integer NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    predecessor bigint NOT NULL,
    digest bytea NOT NULL,
    previous bytea NOT NULL,
    settled smallint NOT NULL,
    received_ms bigint NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (device, epoch, sequence)
  );

  CREATE TABLE voids (
    device integer NOT NULL,
    epoch bigint NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    PRIMARY KEY (device, epoch, first, last)
  );

  CREATE TABLE drops (
    device integer NOT NULL,
    epoch bigint NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    by_epoch bigint NOT NULL,
    by_sequence bigint NOT NULL,
    PRIMARY KEY (device, epoch, by_epoch, by_sequence, last)
  );
  CREATE INDEX drops_by ON drops (device, by_epoch, by_sequence);

  CREATE TABLE rows (
    device integer NOT NULL,
    meter integer NOT NULL,
    generation bigint NOT NULL,
    time_s bigint NOT NULL,
    slot_s bigint NOT NULL,
    status smallint NOT NULL,
    booked smallint NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (device, meter, generation, time_s)
  ) PARTITION BY RANGE (time_s);
  -- Times before and after all months that have a partition of their own.
  CREATE TABLE rows_other PARTITION OF rows DEFAULT;

  -- Quarter hours with at least one booked row (aggregate.ts).
  CREATE TABLE slots (
    device integer NOT NULL,
    meter integer NOT NULL,
    generation bigint NOT NULL,
    end_s bigint NOT NULL,
    revision integer NOT NULL,
    summary bytea NOT NULL,
    PRIMARY KEY (device, meter, generation, end_s)
  ) PARTITION BY RANGE (end_s);
  CREATE TABLE slots_other PARTITION OF slots DEFAULT;

  CREATE TABLE corrections (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device integer NOT NULL,
    meter integer NOT NULL,
    generation bigint NOT NULL,
    end_s bigint NOT NULL,
    revision integer NOT NULL,
    at_ms bigint NOT NULL,
    before bytea NOT NULL,
    after bytea NOT NULL
  );
  CREATE INDEX corrections_of ON corrections (device, id);

  CREATE TABLE exchanges (
    device integer NOT NULL,
    meter integer NOT NULL,
    generation bigint NOT NULL,
    time_s bigint NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    installation bigint NOT NULL,
    PRIMARY KEY (device, meter, generation, time_s, epoch, sequence)
  );

  CREATE TABLE evidence (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device integer NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    digest bytea NOT NULL,
    reason text NOT NULL,
    received_ms bigint NOT NULL,
    bytes bytea NOT NULL,
    UNIQUE (device, epoch, sequence, digest)
  );

  CREATE TABLE quarantine (
    name text NOT NULL,
    digest bytea NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    received_ms bigint NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (name, digest)
  );

  -- Positions are given before the commit: one may appear after a higher one, and some never do.
  CREATE TABLE ledger_queue (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL
  );

  -- Counts what concerns every node: devices enrolled, epochs begun or decided.
  CREATE TABLE common_changes (changes bigint NOT NULL);
  INSERT INTO common_changes VALUES (0);
  `,
  `
  -- LoRaWAN: the modems of devices, and what is remembered of their frames (store-lorawan.ts).
  CREATE TABLE lorawan_devices (
    dev_eui text PRIMARY KEY,
    device integer NOT NULL REFERENCES devices (id),
    bound_ms bigint NOT NULL,
    dev_addr text NOT NULL DEFAULT '',
    f_cnt bigint NOT NULL DEFAULT -1,
    joins bigint NOT NULL DEFAULT 0,
    last_ms bigint NOT NULL DEFAULT 0,
    receipt_ms bigint NOT NULL DEFAULT 0
  ) WITH (fillfactor = 70);
  CREATE INDEX lorawan_devices_of ON lorawan_devices (device);

  CREATE TABLE lorawan_sessions (
    dev_eui text NOT NULL,
    port integer NOT NULL,
    state bytea NOT NULL,
    updated_ms bigint NOT NULL,
    PRIMARY KEY (dev_eui, port)
  ) WITH (fillfactor = 70);

  -- What one node at a time may do; times are the server's.
  CREATE TABLE leases (
    name text PRIMARY KEY,
    holder text NOT NULL,
    until_ms bigint NOT NULL
  );
  `,
];
