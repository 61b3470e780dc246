-- name: verify_snapshot
-- Not in the DSL: it creates temporary tables and functions.
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

-- Minor units as money with the currency, for the messages. More digits than the currency has stay visible.
CREATE FUNCTION pg_temp.verify_money(minor numeric, code text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT coalesce((SELECT round(m.amount, greatest(c.decimals::int, min_scale(m.amount))) || ' ' || c.code
                   FROM currencies c, LATERAL (SELECT $1 * ('1e-' || c.decimals)::numeric AS amount) m
                   WHERE c.code = $2),
                  $1 || ' minor units') $$;
-- A field that differs, with both values; NULL for a field that does not.
CREATE FUNCTION pg_temp.verify_difference(field text, found text, expected text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN $2 IS DISTINCT FROM $3
              THEN $1 || ' ' || coalesce($2, 'none') || ' instead of ' || coalesce($3, 'none') END $$;

-- Filled while the topics are read.
CREATE TEMP TABLE verify_announced (transaction_id uuid);
CREATE TEMP TABLE verify_published (account_id text COLLATE "C", first_seq bigint, next_seq bigint);
CREATE TEMP TABLE verify_gaps (account_id text COLLATE "C", from_seq bigint, to_seq bigint);
CREATE TEMP TABLE verify_sent (id uuid);

ANALYZE verify_accounts;
ANALYZE verify_outbox;
ANALYZE verify_assessments;
ANALYZE verify_announcing
