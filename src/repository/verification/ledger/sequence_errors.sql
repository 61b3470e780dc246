-- name: verify_sequence_errors
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total,
  json_build_object('account_id', rows.account_id, 'account_seq', account_seq, 'transaction_id', id)::text AS ids,
  'transaction ' || account_seq || ' of account ' || rows.account_id || ' does not follow transaction ' || last_seq || ': '
    || concat_ws(', ',
      pg_temp.verify_difference('account_seq', account_seq::text, (last_seq + 1)::text),
      pg_temp.verify_difference('balance', pg_temp.verify_money(balance_after, a.currency),
                                pg_temp.verify_money(last_balance::numeric + amount, a.currency)),
      CASE WHEN created_at < last_created_at THEN 'time ' || created_at || ' before ' || last_created_at END) AS example
FROM (SELECT account_id, account_seq, id, amount, balance_after, created_at,
        lag(account_seq, 1, 0::bigint) OVER of_account AS last_seq,
        lag(balance_after, 1, 0::bigint) OVER of_account AS last_balance,
        lag(created_at) OVER of_account AS last_created_at
      FROM transactions
      WINDOW of_account AS (PARTITION BY account_id ORDER BY account_seq)) AS rows
LEFT JOIN (SELECT account_id, currency FROM accounts) AS a ON a.account_id = rows.account_id
WHERE account_seq <> last_seq + 1 OR balance_after::numeric <> last_balance::numeric + amount
  OR created_at < last_created_at
ORDER BY rows.account_id, account_seq LIMIT pg_temp.verify_examples()
