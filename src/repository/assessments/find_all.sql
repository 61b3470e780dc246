-- name: find_all_assessments
-- diesel's DSL cannot join arrays as a table. OFFSET 0 keeps one probe of the primary key for each transaction, whatever
-- the statistics say.
SELECT wanted.ordinal, found.*
FROM unnest(/* account_ids */ $1, /* account_seqs */ $2) WITH ORDINALITY AS wanted (account_id, account_seq, ordinal)
CROSS JOIN LATERAL (
  SELECT transaction_id, account_id, account_seq, risk_score, risk_level, reasons::text AS reasons,
         shadow_reasons::text AS shadow_reasons, rule_errors::text AS rule_errors, ruleset, assessed_at
  FROM risk_assessments r
  WHERE r.account_id = wanted.account_id AND r.account_seq = wanted.account_seq OFFSET 0
) AS found
