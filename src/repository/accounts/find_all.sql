-- name: find_all_accounts
-- diesel's DSL cannot join an array as a table. OFFSET 0 keeps one probe of the primary key for each account, whatever
-- the statistics say.
SELECT wanted.ordinal, account.*
FROM unnest(/* account_ids */ $1) WITH ORDINALITY AS wanted (account_id, ordinal)
CROSS JOIN LATERAL (
  SELECT account_id, currency, balance, account_seq, min_balance, last_created_at, opened_at
  FROM accounts WHERE accounts.account_id = wanted.account_id OFFSET 0
) AS account
