-- name: verify_scored_rows
-- Not in the DSL: lateral joins. OFFSET 0 keeps one probe of a primary key for each transaction.
SELECT t.account_id, a.currency, t.account_seq, t.id AS transaction_id, t.amount, t.balance_after, t.created_at, t.reverses,
  t.counterparty, t.description, t.metadata::text AS metadata,
  r.ruleset, r.risk_score, r.risk_level, r.reasons::text AS reasons, r.shadow_reasons::text AS shadow_reasons,
  r.rule_errors::text AS rule_errors
FROM (SELECT * FROM transactions
      WHERE (account_id, account_seq) > (/* account_id */ $1, /* account_seq */ $2)
      ORDER BY account_id, account_seq LIMIT /* rows at most */ $3) AS t
LEFT JOIN LATERAL (SELECT currency FROM accounts WHERE accounts.account_id = t.account_id OFFSET 0) AS a ON true
LEFT JOIN LATERAL (
  SELECT * FROM risk_assessments
  WHERE risk_assessments.account_id = t.account_id AND risk_assessments.account_seq = t.account_seq OFFSET 0
) AS r ON true
ORDER BY t.account_id, t.account_seq
