-- Tables derived from the ledger: risk assessments and the facts for analytics.

CREATE TABLE risk_assessments (
  account_id text COLLATE "C" NOT NULL,
  account_seq bigint NOT NULL,
  transaction_id uuid NOT NULL,
  risk_score smallint NOT NULL CHECK (risk_score BETWEEN 0 AND 100),
  risk_level text NOT NULL CHECK (risk_level IN ('low', 'medium', 'high')),
  reasons json NOT NULL,
  shadow_reasons json NOT NULL,
  ruleset text NOT NULL,
  assessed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (account_id, account_seq)
);
COMMENT ON TABLE risk_assessments IS 'one assessment for each transaction, however often its event is delivered';
CREATE INDEX risk_assessments_by_transaction ON risk_assessments (transaction_id);
CREATE INDEX risk_assessments_notable ON risk_assessments (transaction_id) WHERE risk_level <> 'low';

-- Amounts in facts are decimals in the currency's unit, for people and tools that do not know minor units.
CREATE TABLE fact_transactions (
  business_date date NOT NULL,
  transaction_id uuid NOT NULL,
  account_id text COLLATE "C" NOT NULL,
  account_seq bigint NOT NULL,
  created_at timestamptz NOT NULL,
  hour smallint NOT NULL,
  currency text NOT NULL,
  direction text NOT NULL,
  amount numeric(22, 4) NOT NULL,
  signed_amount numeric(22, 4) NOT NULL,
  balance_after numeric(22, 4) NOT NULL,
  counterparty text,
  description text,
  metadata json,
  reverses uuid,
  risk_score smallint,
  risk_level text,
  ruleset text,
  assessed_at timestamptz,
  PRIMARY KEY (business_date, transaction_id)
);

CREATE TABLE fact_account_day (
  business_date date NOT NULL,
  account_id text COLLATE "C" NOT NULL,
  currency text NOT NULL,
  transaction_count bigint NOT NULL,
  credit_count bigint NOT NULL,
  debit_count bigint NOT NULL,
  credit_sum numeric(38, 4) NOT NULL,
  debit_sum numeric(38, 4) NOT NULL,
  opening_balance numeric(22, 4) NOT NULL,
  closing_balance numeric(22, 4) NOT NULL,
  assessed_count bigint NOT NULL,
  max_risk_score smallint,
  high_risk_count bigint NOT NULL,
  PRIMARY KEY (business_date, account_id)
);

CREATE TABLE aggregate_runs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at timestamptz,
  mode text NOT NULL,
  status text NOT NULL CHECK (status IN ('running', 'succeeded', 'failed')),
  days_rebuilt integer NOT NULL DEFAULT 0,
  first_day date,
  last_day date,
  transactions bigint NOT NULL DEFAULT 0,
  error text
);
-- One run at a time: a process that lost its lease without noticing cannot start a second run.
CREATE UNIQUE INDEX aggregate_runs_one_running ON aggregate_runs (status) WHERE status = 'running';
