-- name: open_outbox_transactions
SELECT virtualtransaction AS virtual_transaction FROM pg_locks
WHERE relation = 'outbox'::regclass AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
