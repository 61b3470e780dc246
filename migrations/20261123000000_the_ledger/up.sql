-- The ledger: currencies, accounts and append-only transactions.

CREATE TABLE currencies (
  code text PRIMARY KEY,
  decimals smallint NOT NULL CHECK (decimals BETWEEN 0 AND 4)
);
COMMENT ON TABLE currencies IS 'ISO 4217 codes with the number of decimals; equal to the list in the binary';

INSERT INTO currencies (code, decimals) VALUES
  ('AED', 2), ('AFN', 2), ('ALL', 2), ('AMD', 2), ('AOA', 2), ('ARS', 2), ('AUD', 2), ('AWG', 2),
  ('AZN', 2), ('BAM', 2), ('BBD', 2), ('BDT', 2), ('BGN', 2), ('BHD', 3), ('BIF', 0), ('BMD', 2),
  ('BND', 2), ('BOB', 2), ('BRL', 2), ('BSD', 2), ('BTN', 2), ('BWP', 2), ('BYN', 2), ('BZD', 2),
  ('CAD', 2), ('CDF', 2), ('CHF', 2), ('CLF', 4), ('CLP', 0), ('CNY', 2), ('COP', 2), ('CRC', 2),
  ('CUP', 2), ('CVE', 2), ('CZK', 2), ('DJF', 0), ('DKK', 2), ('DOP', 2), ('DZD', 2), ('EGP', 2),
  ('ERN', 2), ('ETB', 2), ('EUR', 2), ('FJD', 2), ('FKP', 2), ('GBP', 2), ('GEL', 2), ('GHS', 2),
  ('GIP', 2), ('GMD', 2), ('GNF', 0), ('GTQ', 2), ('GYD', 2), ('HKD', 2), ('HNL', 2), ('HTG', 2),
  ('HUF', 2), ('IDR', 2), ('ILS', 2), ('INR', 2), ('IQD', 3), ('IRR', 2), ('ISK', 0), ('JMD', 2),
  ('JOD', 3), ('JPY', 0), ('KES', 2), ('KGS', 2), ('KHR', 2), ('KMF', 0), ('KPW', 2), ('KRW', 0),
  ('KWD', 3), ('KYD', 2), ('KZT', 2), ('LAK', 2), ('LBP', 2), ('LKR', 2), ('LRD', 2), ('LSL', 2),
  ('LYD', 3), ('MAD', 2), ('MDL', 2), ('MGA', 2), ('MKD', 2), ('MMK', 2), ('MNT', 2), ('MOP', 2),
  ('MRU', 2), ('MUR', 2), ('MVR', 2), ('MWK', 2), ('MXN', 2), ('MYR', 2), ('MZN', 2), ('NAD', 2),
  ('NGN', 2), ('NIO', 2), ('NOK', 2), ('NPR', 2), ('NZD', 2), ('OMR', 3), ('PAB', 2), ('PEN', 2),
  ('PGK', 2), ('PHP', 2), ('PKR', 2), ('PLN', 2), ('PYG', 0), ('QAR', 2), ('RON', 2), ('RSD', 2),
  ('RUB', 2), ('RWF', 0), ('SAR', 2), ('SBD', 2), ('SCR', 2), ('SDG', 2), ('SEK', 2), ('SGD', 2),
  ('SHP', 2), ('SLE', 2), ('SOS', 2), ('SRD', 2), ('SSP', 2), ('STN', 2), ('SVC', 2), ('SYP', 2),
  ('SZL', 2), ('THB', 2), ('TJS', 2), ('TMT', 2), ('TND', 3), ('TOP', 2), ('TRY', 2), ('TTD', 2),
  ('TWD', 2), ('TZS', 2), ('UAH', 2), ('UGX', 0), ('USD', 2), ('UYU', 2), ('UYW', 4), ('UZS', 2),
  ('VED', 2), ('VES', 2), ('VND', 0), ('VUV', 0), ('WST', 2), ('XAF', 0), ('XCD', 2), ('XCG', 2),
  ('XOF', 0), ('XPF', 0), ('YER', 2), ('ZAR', 2), ('ZMW', 2), ('ZWG', 2);

-- Amounts and balances are whole minor units: exact, eight bytes each.
CREATE TABLE accounts (
  account_id text COLLATE "C" PRIMARY KEY,
  currency text NOT NULL REFERENCES currencies (code),
  balance bigint NOT NULL DEFAULT 0,
  account_seq bigint NOT NULL DEFAULT 0 CHECK (account_seq >= 0),
  min_balance bigint,
  last_created_at timestamptz,
  opened_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (
  -- Every posting updates its account. Free space on each page lets PostgreSQL update the row without the indexes.
  fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05
);
COMMENT ON COLUMN accounts.account_seq IS 'sequence number of the last transaction; the balance is a function of it';

-- Every unique key begins with account_id, so that the table can be distributed by it. There is no foreign key to
-- accounts: the statement that inserts transactions also updates their accounts, and counts the updated rows.
CREATE TABLE transactions (
  account_id text COLLATE "C" NOT NULL,
  account_seq bigint NOT NULL CHECK (account_seq > 0),
  id uuid NOT NULL,
  amount bigint NOT NULL CHECK (amount <> 0),
  balance_after bigint NOT NULL,
  created_at timestamptz NOT NULL,
  reverses uuid,
  idempotency_key text COLLATE "C" NOT NULL,
  counterparty text,
  description text,
  metadata json,
  PRIMARY KEY (account_id, account_seq),
  CONSTRAINT transactions_idempotency UNIQUE (account_id, idempotency_key)
);
COMMENT ON COLUMN transactions.amount IS 'minor units added to the balance: positive for a credit, negative for a debit';
COMMENT ON COLUMN transactions.id IS 'UUIDv7 made from created_at with microseconds, so ids sort by time';
CREATE INDEX transactions_by_id ON transactions (id);
CREATE UNIQUE INDEX transactions_reversed_once ON transactions (account_id, reverses) WHERE reverses IS NOT NULL;

CREATE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'LG002', HINT = 'Post a reversal instead.';
END $$;
CREATE TRIGGER transactions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transactions
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
-- A restore or a replica runs with session_replication_role = replica, so the trigger does not stop it.

-- Fails the statement of the expected path if an account differs from the state that the writer expects.
CREATE FUNCTION ledger_stale_group() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'an account of the group differs from its expected state' USING ERRCODE = 'LG001';
END $$;

-- The days whose facts must be rebuilt. Writers only insert marks, and aggregate deletes only the marks that its
-- snapshot sees. So no process waits for another, and a transaction that commits late leaves its own mark.
CREATE TABLE fact_marks (
  day date NOT NULL,
  marked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  -- A publication of all tables refuses deletes from a table without a key. The time keeps inserts at the end of a day's
  -- index entries. The id is no sequence: replicas do not receive the state of a sequence, so its values could repeat.
  PRIMARY KEY (day, marked_at, id)
);
COMMENT ON TABLE fact_marks IS 'one row for each commit and each day that it touched; deleted when the day is rebuilt';
