-- name: write_group
-- diesel's DSL cannot write four tables in one statement.
WITH
-- Updates each account whose state is still the expected one. The balance is compared although it follows from
-- account_seq: that holds within one history, and a restore or a failover may have replaced the history.
updated AS (
  UPDATE accounts a
  SET balance = m.balance, account_seq = m.account_seq, last_created_at = m.last_created_at
  FROM (SELECT unnest(/* account_ids */ $1) AS account_id,
               unnest(/* expected_seqs */ $2) AS expected_seq,
               unnest(/* expected_balances */ $3) AS expected_balance,
               unnest(/* min_balances */ $4) AS min_balance,
               unnest(/* balances */ $5) AS balance,
               unnest(/* account_seqs */ $6) AS account_seq,
               unnest(/* last_created_ats */ $7) AS last_created_at) m
  WHERE a.account_id = m.account_id AND a.account_seq = m.expected_seq AND a.balance = m.expected_balance
    AND a.min_balance IS NOT DISTINCT FROM m.min_balance
  RETURNING 1
),
-- Inserts the transactions. An idempotency key that exists fails the statement with a unique violation.
inserted AS (
  INSERT INTO transactions (account_id, account_seq, id, amount, balance_after, created_at, reverses,
                            idempotency_key, counterparty, description, metadata)
  SELECT unnest(/* account_ids */ $8), unnest(/* account_seqs */ $9), unnest(/* ids */ $10),
         unnest(/* amounts */ $11), unnest(/* balances_after */ $12), unnest(/* created_ats */ $13),
         unnest(/* reverses */ $14), unnest(/* idempotency_keys */ $15), unnest(/* counterparties */ $16),
         unnest(/* descriptions */ $17), unnest(/* metadata */ $18)::json
),
-- Inserts one event for each transaction. outbox.id is drawn here, after the accounts are locked or checked, in the
-- order of the group for each account.
queued AS (
  INSERT INTO outbox (lane, topic, key, value, event_id, event_type, created_at, traceparent)
  SELECT unnest(/* lanes */ $19), 'transactions.v1', unnest(/* keys */ $20), unnest(/* values */ $21),
         unnest(/* event_ids */ $22), 'TransactionCreated.v1', unnest(/* created_ats */ $23),
         unnest(/* traceparents */ $24)
),
-- Marks the transactions whose facts must be written.
marked AS (
  INSERT INTO fact_marks (day, begin_id, end_id)
  SELECT unnest(/* days */ $25), unnest(/* begin_ids */ $28), unnest(/* end_ids */ $29)
)
-- Fails the whole statement unless the moment of the decisions is that of the server's clock, and every account was
-- updated. statement_timestamp() is when the statement arrived, so waits for locks do not count. A moment that is late by
-- some seconds does no harm: the statement may have been on its way.
SELECT statement_timestamp() AS server_time,
       CASE WHEN /* decided_at */ $26 NOT BETWEEN statement_timestamp() - interval '10 s'
                                              AND statement_timestamp() + interval '1 s' THEN ledger_clock_differs()
            WHEN (SELECT count(*) FROM updated) <> /* accounts_touched */ $27 THEN ledger_stale_group()
       END
