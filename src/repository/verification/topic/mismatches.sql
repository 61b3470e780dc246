-- name: verify_transaction_mismatches
-- Not in the DSL: it compares whole tables.
SELECT e.record_offset,
  -- The dead letters are read once, and not for each mismatch. -1 stands for no leader epoch, which IN cannot compare.
  (e.partition, e.record_offset, coalesce(e.leader_epoch, -1)) IN (
    SELECT d.partition, d.record_offset, coalesce(d.leader_epoch, -1) FROM dead_letters d
    WHERE d.topic = 'transactions.v1' AND d.record_offset IS NOT NULL AND NOT d.of_earlier_log) AS dead_lettered,
  json_build_object('account_id', e.account_id, 'account_seq', e.account_seq, 'transaction_id', e.event_id,
                    'partition', e.partition, 'offset', e.record_offset)::text AS ids,
  'the event of transaction ' || e.account_seq || ' of account ' || e.account_id || ' (partition ' || e.partition
    || ' offset ' || e.record_offset || ') '
    || CASE WHEN t.id IS NULL THEN 'has no transaction in the ledger'
            ELSE 'differs from the ledger: ' || concat_ws(', ',
              pg_temp.verify_difference('id', e.event_id::text, t.id::text),
              pg_temp.verify_difference('amount', pg_temp.verify_money(e.amount, u.currency),
                                        pg_temp.verify_money(t.amount, u.currency)),
              pg_temp.verify_difference('balance', pg_temp.verify_money(e.balance_after, u.currency),
                                        pg_temp.verify_money(t.balance_after, u.currency)),
              pg_temp.verify_difference('currency', e.currency, a.currency),
              pg_temp.verify_difference('time', e.created_at::text, t.created_at::text),
              pg_temp.verify_difference('counterparty', to_json(e.counterparty)::text, to_json(t.counterparty)::text),
              pg_temp.verify_difference('description', to_json(e.description)::text, to_json(t.description)::text),
              pg_temp.verify_difference('metadata', e.metadata, t.metadata::text),
              pg_temp.verify_difference('reversed transaction', e.reverses::text, t.reverses::text)) END AS example
FROM unnest(/* partitions */ $1, /* offsets */ $2, /* account_ids */ $3, /* account_seqs */ $4, /* event_ids */ $5,
            /* amounts */ $6, /* balances_after */ $7, /* currencies */ $8, /* created_at */ $9,
            /* counterparties */ $10, /* descriptions */ $11, /* metadata */ $12, /* reverses */ $13,
            /* leader_epochs */ $14)
  AS e (partition, record_offset, account_id, account_seq, event_id, amount, balance_after, currency,
        created_at, counterparty, description, metadata, reverses, leader_epoch)
LEFT JOIN transactions t ON t.account_id = e.account_id AND t.account_seq = e.account_seq
LEFT JOIN accounts a ON a.account_id = e.account_id
-- Both amounts of a difference are shown in one currency.
CROSS JOIN LATERAL (SELECT coalesce(a.currency, e.currency) AS currency) AS u
WHERE (t.id, t.amount, t.balance_after, a.currency, t.created_at, t.counterparty, t.description,
       t.metadata::text, t.reverses)
      IS DISTINCT FROM
      (e.event_id, e.amount, e.balance_after, e.currency, e.created_at, e.counterparty, e.description,
       e.metadata, e.reverses)
ORDER BY e.record_offset
