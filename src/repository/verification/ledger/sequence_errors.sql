-- name: verify_sequence_errors
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total,
  'transaction ' || account_seq || ' of account ' || rows.account_id || ' (balance '
    || pg_temp.verify_money(balance_after, a.currency) || ', amount ' || pg_temp.verify_money(amount, a.currency)
    || ') follows transaction ' || last_seq || ' (balance ' || pg_temp.verify_money(last_balance, a.currency) || ')'
    || CASE WHEN created_at < last_created_at THEN ' and is older' ELSE '' END AS example
FROM (SELECT account_id, account_seq, amount, balance_after, created_at,
        lag(account_seq, 1, 0::bigint) OVER of_account AS last_seq,
        lag(balance_after, 1, 0::bigint) OVER of_account AS last_balance,
        lag(created_at) OVER of_account AS last_created_at
      FROM transactions
      WINDOW of_account AS (PARTITION BY account_id ORDER BY account_seq)) AS rows
LEFT JOIN (SELECT account_id, currency FROM accounts) AS a ON a.account_id = rows.account_id
WHERE account_seq <> last_seq + 1 OR balance_after::numeric <> last_balance::numeric + amount
  OR created_at < last_created_at
ORDER BY rows.account_id, account_seq LIMIT 10
