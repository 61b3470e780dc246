-- name: verify_snapshot
-- Not in the DSL: it creates temporary tables.
-- Copies of the tables at the moment of the snapshot, with which everything is compared.
CREATE TEMP TABLE verify_accounts AS SELECT account_id, account_seq FROM accounts;
-- Only dead letters and events that are published again have headers of their own.
CREATE TEMP TABLE verify_outbox AS SELECT topic, event_id, headers IS NOT NULL AS is_republished FROM outbox;
CREATE TEMP TABLE verify_dead_letters AS SELECT * FROM dead_letters;
CREATE TEMP TABLE verify_assessments AS
  SELECT account_id, account_seq, transaction_id, assessed_at FROM risk_assessments;

-- RiskAssessed events that wait in the outbox, or that the relay dead-lettered.
CREATE TEMP TABLE verify_announcing AS
  SELECT (convert_from(value, 'UTF8')::json ->> 'transaction_id')::uuid AS transaction_id
  FROM (SELECT value FROM outbox WHERE event_type = 'RiskAssessed.v1'
        UNION ALL SELECT value FROM dead_letters
        WHERE topic = 'risk-assessments.v1' AND record_offset IS NULL) AS waiting;

-- Filled while the topics are read.
CREATE TEMP TABLE verify_announced (transaction_id uuid);
CREATE TEMP TABLE verify_published (account_id text COLLATE "C", first_seq bigint, next_seq bigint);
CREATE TEMP TABLE verify_gaps (account_id text COLLATE "C", from_seq bigint, to_seq bigint);
CREATE TEMP TABLE verify_sent (id uuid);

ANALYZE verify_accounts;
ANALYZE verify_outbox;
ANALYZE verify_assessments;
ANALYZE verify_announcing
