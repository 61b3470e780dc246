-- name: verify_balance_mismatches
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total,
  'account ' || coalesce(a.account_id, t.account_id) || ': balance '
    || coalesce(pg_temp.verify_money(a.balance, a.currency), 'none') || ' at transaction '
    || coalesce(a.account_seq::text, 'none') || ', but ' || coalesce(t.rows, 0) || ' transactions up to '
    || coalesce(t.last_seq, 0) || ' sum to ' || pg_temp.verify_money(coalesce(t.sum, 0), a.currency) AS example
FROM accounts a
FULL JOIN (SELECT account_id, count(*) AS rows, max(account_seq) AS last_seq, sum(amount) AS sum
           FROM transactions GROUP BY account_id) AS t ON t.account_id = a.account_id
WHERE a.account_id IS NULL OR a.balance <> coalesce(t.sum, 0)
  OR a.account_seq <> coalesce(t.rows, 0) OR a.account_seq <> coalesce(t.last_seq, 0)
ORDER BY coalesce(a.account_id, t.account_id) LIMIT 10
