-- name: verify_balance_mismatches
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total,
  json_build_object('account_id', coalesce(a.account_id, t.account_id))::text AS ids,
  'account ' || coalesce(a.account_id, t.account_id)
    || CASE WHEN a.account_id IS NULL THEN ' has ' || t.rows || ' transactions, but no row in accounts'
            ELSE ' differs from its transactions: ' || concat_ws(', ',
              pg_temp.verify_difference('balance', pg_temp.verify_money(a.balance, a.currency),
                                        pg_temp.verify_money(coalesce(t.sum, 0), a.currency)),
              pg_temp.verify_difference('number of transactions', a.account_seq::text, coalesce(t.rows, 0)::text),
              pg_temp.verify_difference('last account_seq', a.account_seq::text, coalesce(t.last_seq, 0)::text))
       END AS example
FROM accounts a
FULL JOIN (SELECT account_id, count(*) AS rows, max(account_seq) AS last_seq, sum(amount) AS sum
           FROM transactions GROUP BY account_id) AS t ON t.account_id = a.account_id
WHERE a.account_id IS NULL OR a.balance <> coalesce(t.sum, 0)
  OR a.account_seq <> coalesce(t.rows, 0) OR a.account_seq <> coalesce(t.last_seq, 0)
ORDER BY coalesce(a.account_id, t.account_id) LIMIT pg_temp.verify_examples()
