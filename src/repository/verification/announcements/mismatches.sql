-- name: verify_announcement_mismatches
-- Not in the DSL: it compares whole tables.
WITH e AS MATERIALIZED (
  -- The published events.
  SELECT *
  FROM unnest(/* account_ids */ $1, /* account_seqs */ $2, /* transaction_ids */ $3, /* risk_scores */ $4,
              /* risk_levels */ $5, /* rulesets */ $6, /* reasons */ $7, /* shadow_reasons */ $8, /* assessed_at */ $9,
              /* rule_errors */ $10)
    AS e (account_id, account_seq, transaction_id, risk_score, risk_level, ruleset, reasons, shadow_reasons,
          assessed_at, rule_errors)),
recorded AS (
  -- Remembers that these transactions were announced; `verify_unannounced` looks for the others.
  INSERT INTO verify_announced SELECT transaction_id FROM e)
SELECT count(*) OVER () AS total,
  json_build_object('account_id', e.account_id, 'account_seq', e.account_seq, 'transaction_id', e.transaction_id)::text AS ids,
  'the event about transaction ' || e.account_seq || ' of account ' || e.account_id || ' '
    || CASE WHEN r.transaction_id IS NULL THEN 'has no assessment'
            ELSE 'differs from the assessment: ' || concat_ws(', ',
              pg_temp.verify_difference('transaction', e.transaction_id::text, r.transaction_id::text),
              pg_temp.verify_difference('score', e.risk_score::text, r.risk_score::text),
              pg_temp.verify_difference('level', e.risk_level, r.risk_level),
              pg_temp.verify_difference('rule set', e.ruleset, r.ruleset),
              pg_temp.verify_difference('reasons', e.reasons, r.reasons::text),
              pg_temp.verify_difference('shadow reasons', e.shadow_reasons, r.shadow_reasons::text),
              pg_temp.verify_difference('rule errors', e.rule_errors, r.rule_errors::text),
              pg_temp.verify_difference('time', e.assessed_at::text, r.assessed_at::text)) END AS example
FROM e LEFT JOIN risk_assessments r ON r.account_id = e.account_id AND r.account_seq = e.account_seq
WHERE (r.transaction_id, r.risk_score, r.risk_level, r.ruleset, r.reasons::text, r.shadow_reasons::text, r.assessed_at,
       r.rule_errors::text)
        IS DISTINCT FROM (e.transaction_id, e.risk_score, e.risk_level, e.ruleset, e.reasons, e.shadow_reasons,
                          e.assessed_at, e.rule_errors)
ORDER BY e.account_id, e.account_seq LIMIT pg_temp.verify_examples()
