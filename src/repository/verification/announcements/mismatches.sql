-- name: verify_announcement_mismatches
-- Not in the DSL: it compares whole tables.
WITH e AS MATERIALIZED (
  -- The published events.
  SELECT *
  FROM unnest(/* account_ids */ $1, /* account_seqs */ $2, /* transaction_ids */ $3, /* risk_scores */ $4,
              /* risk_levels */ $5, /* rulesets */ $6)
    AS e (account_id, account_seq, transaction_id, risk_score, risk_level, ruleset)),
recorded AS (
  -- Remembers that these transactions were announced; `verify_unannounced` looks for the others.
  INSERT INTO verify_announced SELECT transaction_id FROM e)
SELECT count(*) OVER () AS total,
  'transaction ' || e.account_seq || ' of account ' || e.account_id || ' is announced as ' || e.risk_score || ' '
    || e.risk_level || ' by ' || e.ruleset || ', but its assessment is '
    || coalesce(r.risk_score || ' ' || r.risk_level || ' by ' || r.ruleset, 'missing') AS example
FROM e LEFT JOIN risk_assessments r ON r.account_id = e.account_id AND r.account_seq = e.account_seq
WHERE (r.transaction_id, r.risk_score, r.risk_level, r.ruleset)
        IS DISTINCT FROM (e.transaction_id, e.risk_score, e.risk_level, e.ruleset)
ORDER BY e.account_id, e.account_seq LIMIT 10
