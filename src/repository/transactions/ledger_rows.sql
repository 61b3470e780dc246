-- name: ledger_rows
-- diesel's DSL cannot join arrays as a table. With OFFSET 0, each subquery stays one probe of a primary key for each
-- event, whatever the statistics say about new tables.
SELECT e.ordinal, t.id, t.amount, t.balance_after, t.created_at, t.counterparty, t.description,
       t.metadata::text AS metadata, t.reverses,
       CASE WHEN NOT e.is_known THEN
         (SELECT currency FROM accounts a WHERE a.account_id = e.account_id OFFSET 0)
       END AS currency,
       CASE WHEN e.is_known THEN false ELSE
         EXISTS (SELECT FROM risk_assessments r
                 WHERE r.account_id = e.account_id AND r.account_seq = e.account_seq OFFSET 0)
       END AS is_assessed,
       -- Whether the account's transaction before this one, if there is one, is assessed.
       CASE WHEN e.is_known OR e.account_seq = 1 THEN true ELSE
         EXISTS (SELECT FROM risk_assessments r
                 WHERE r.account_id = e.account_id AND r.account_seq = e.account_seq - 1 OFFSET 0)
       END AS follows_assessed
FROM unnest(/* account_ids */ $1, /* account_seqs */ $2, /* is_known */ $3)
  WITH ORDINALITY AS e (account_id, account_seq, is_known, ordinal)
CROSS JOIN LATERAL (
  SELECT id, amount, balance_after, created_at, counterparty, description, metadata, reverses
  FROM transactions t
  WHERE t.account_id = e.account_id AND t.account_seq = e.account_seq OFFSET 0
) t
