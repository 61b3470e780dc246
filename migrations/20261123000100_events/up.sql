-- Events that are published or consumed: outbox, leases, positions, dead letters, the PostgreSQL broker.

CREATE SEQUENCE outbox_id AS bigint CACHE 1;

-- Rows wait here until the broker has acknowledged them; then they are deleted. `id` is drawn after the account's row
-- is locked, so within a lane the ids of an account's events rise with account_seq.
CREATE TABLE outbox (
  lane smallint NOT NULL CHECK (lane BETWEEN 0 AND 31),
  id bigint NOT NULL DEFAULT nextval('outbox_id'),
  topic text NOT NULL,
  key bytea,
  value bytea,
  event_id uuid NOT NULL,
  event_type text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  traceparent text,
  headers json,
  PRIMARY KEY (lane, id)
) WITH (
  -- The table is a queue: most rows are dead soon. Vacuum by number of rows, not by share of the table.
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000000
);
ALTER SEQUENCE outbox_id OWNED BY outbox.id;
COMMENT ON COLUMN outbox.headers IS 'array of [name, base64 value]: headers to publish instead of those of CloudEvents';

-- The right of one process to do some work until a time of the database's clock. Taking a lease raises its epoch. Work
-- under a lease updates the row WHERE epoch = its own in the same database transaction, so a process that lost the
-- lease cannot commit.
CREATE TABLE leases (
  name text COLLATE "C" PRIMARY KEY,
  owner text,
  epoch bigint NOT NULL DEFAULT 0,
  expires_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);

CREATE TABLE lease_members (
  lease_group text COLLATE "C" NOT NULL,
  member text COLLATE "C" NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (lease_group, member)
) WITH (fillfactor = 50);
COMMENT ON TABLE lease_members IS 'the processes that share the leases of a group; each computes its fair share from these rows';

CREATE TABLE consumer_positions (
  consumer_group text COLLATE "C" NOT NULL,
  topic text COLLATE "C" NOT NULL,
  partition integer NOT NULL CHECK (partition >= 0),
  next_offset bigint NOT NULL CHECK (next_offset >= 0),
  attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  interrupted boolean NOT NULL DEFAULT false,
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (consumer_group, topic, partition)
) WITH (fillfactor = 50);
COMMENT ON COLUMN consumer_positions.attempts IS 'how often the record at next_offset was attempted alone; committed before each attempt';
COMMENT ON COLUMN consumer_positions.interrupted IS 'an owner began its first batch here and has not ended it; the next owner that finds this retries the records one by one';

CREATE TABLE dead_letters (
  id uuid PRIMARY KEY,
  consumer_group text NOT NULL,
  topic text NOT NULL,
  partition integer,
  record_offset bigint,
  key bytea,
  value bytea,
  headers json NOT NULL,
  stage text NOT NULL,
  reason text NOT NULL,
  error text NOT NULL,
  attempts integer NOT NULL,
  event_id uuid,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX dead_letters_once ON dead_letters (consumer_group, topic, partition, record_offset)
  WHERE record_offset IS NOT NULL;

CREATE TABLE dead_letter_replays (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  dead_letter_id uuid NOT NULL REFERENCES dead_letters (id),
  replayed_by text NOT NULL,
  replayed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  outcome text NOT NULL
);
CREATE INDEX dead_letter_replays_by_letter ON dead_letter_replays (dead_letter_id);

-- The PostgreSQL broker: topics as tables. An offset is drawn under the partition's row lock, which lasts until the
-- commit. So offsets have no gaps and become visible in order.
CREATE TABLE broker_partitions (
  topic text COLLATE "C" NOT NULL,
  partition integer NOT NULL CHECK (partition >= 0),
  next_offset bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

CREATE TABLE broker_records (
  topic text COLLATE "C" NOT NULL,
  partition integer NOT NULL,
  record_offset bigint NOT NULL,
  key bytea,
  value bytea,
  headers json NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (topic, partition, record_offset)
);
