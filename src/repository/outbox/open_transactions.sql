-- name: open_outbox_transactions
-- Not in the DSL: it reads the locks of the server.
SELECT virtualtransaction AS virtual_transaction FROM pg_locks
WHERE relation = 'outbox'::regclass AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
