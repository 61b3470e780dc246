-- name: verify_append_only
-- Not in the DSL: it reads the catalog.
WITH guard AS (
  -- The trigger that refuses changes, as the first migration creates it.
  SELECT t.tgenabled, t.tgtype, t.tgqual, p.prosrc FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
  WHERE t.tgrelid = 'transactions'::regclass AND t.tgname = 'transactions_append_only'),
problem AS (
  SELECT 'the trigger transactions_append_only does not exist; CREATE TRIGGER transactions_append_only BEFORE UPDATE OR '
    || 'DELETE OR TRUNCATE ON transactions FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change() restores it' AS text
  WHERE NOT EXISTS (SELECT FROM guard)
  UNION ALL
  SELECT 'the trigger transactions_append_only is disabled; ALTER TABLE transactions ENABLE TRIGGER '
    || 'transactions_append_only enables it' FROM guard WHERE tgenabled NOT IN ('O', 'A')
  UNION ALL
  -- 58 is the sum of the bits for BEFORE, DELETE, UPDATE and TRUNCATE, without that for each row.
  SELECT 'the trigger transactions_append_only or its function was changed, so that it does not refuse every change'
  FROM guard WHERE tgtype <> 58 OR tgqual IS NOT NULL OR prosrc NOT LIKE '%RAISE EXCEPTION%LG002%'
  UNION ALL
  -- Such a session skips the trigger.
  SELECT 'session_replication_role is replica by default for '
    || coalesce('the role ' || s.setrole::regrole, 'every role of the database') || '; reset it'
  FROM (SELECT nullif(setrole, 0) AS setrole FROM pg_db_role_setting
        WHERE 'session_replication_role=replica' = ANY (setconfig)
          AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))) AS s)
SELECT count(*) OVER () AS total, '{}' AS ids, text AS example FROM problem
