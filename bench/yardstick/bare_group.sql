-- The minimal work of a group in PostgreSQL: the same number of rows into the ledger's own tables, by two statements and
-- one commit, without any check of accounts, balances or keys.
BEGIN;
INSERT INTO transactions (account_id, account_seq, id, amount, balance_after, created_at, idempotency_key)
SELECT 'acct-' || (random() * 10000)::int, nextval('outbox_id'), gen_random_uuid(), 1050, 1050, now(), md5(random()::text)
FROM generate_series(1, :rows);
INSERT INTO outbox (lane, topic, key, value, event_id, event_type)
SELECT i % 32, 'transactions.v1', 'acct-1', convert_to(repeat('x', 260), 'UTF8'), gen_random_uuid(), 'TransactionCreated.v1'
FROM generate_series(1, :rows) i;
COMMIT;
