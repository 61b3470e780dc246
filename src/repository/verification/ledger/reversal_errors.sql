-- name: verify_reversal_errors
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total,
  json_build_object('account_id', account_id, 'account_seq', account_seq, 'transaction_id', id, 'reverses', reverses)::text AS ids,
  'transaction ' || account_seq || ' of account ' || account_id || ' reverses ' || reverses || ', '
    || CASE WHEN amount_reversed IS NULL THEN 'which its account does not have'
            WHEN times > 1 THEN 'which is reversed ' || times || ' times'
            ELSE 'of amount ' || pg_temp.verify_money(amount_reversed, currency) || ', by '
              || pg_temp.verify_money(amount, currency) END AS example
FROM (SELECT r.account_id, r.account_seq, r.id, r.reverses, r.amount, t.amount AS amount_reversed, a.currency,
        count(*) OVER (PARTITION BY r.account_id, r.reverses) AS times
      FROM transactions r
      LEFT JOIN transactions t ON t.id = r.reverses AND t.account_id = r.account_id
      LEFT JOIN accounts a ON a.account_id = r.account_id
      WHERE r.reverses IS NOT NULL) AS reversals
WHERE amount_reversed IS NULL OR amount_reversed <> -amount OR times > 1
ORDER BY account_id, account_seq LIMIT pg_temp.verify_examples()
