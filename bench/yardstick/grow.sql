-- An old ledger: :rows transactions spread over :accounts accounts and two years, with the ids, sequence numbers and
-- balances that a writer would create, but without events. bench.py fills in the numbers. Indexes are created afterwards,
-- which is faster.
SET maintenance_work_mem = '512MB';
CREATE TEMP TABLE dropped AS
  SELECT format('ALTER TABLE transactions DROP CONSTRAINT %I', conname) AS away,
         format('ALTER TABLE transactions ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) AS back
  FROM pg_constraint WHERE conrelid = 'transactions'::regclass AND contype IN ('p', 'u')
  UNION ALL
  SELECT format('DROP INDEX %s', indexrelid::regclass), pg_get_indexdef(indexrelid)
  FROM pg_index WHERE indrelid = 'transactions'::regclass
    AND indexrelid NOT IN (SELECT conindid FROM pg_constraint WHERE conrelid = 'transactions'::regclass);
DO $$ DECLARE statement text; BEGIN FOR statement IN SELECT away FROM dropped LOOP EXECUTE statement; END LOOP; END $$;
INSERT INTO transactions (account_id, account_seq, id, amount, balance_after, created_at, idempotency_key, counterparty)
SELECT 'acct-' || (n % :accounts) + 1, n / :accounts + 1,
       (lpad(to_hex(micros / 1000), 12, '0') || lpad(to_hex(28672 + micros % 1000 * 4096 / 1000), 4, '0')
         || '8' || substr(md5(n::text), 1, 15))::uuid,
       100, (n / :accounts + 1) * 100, timestamptz 'epoch' + micros * interval '1 microsecond', 'grown-' || md5(n::text),
       'shop-' || n % 300
FROM (SELECT n, (extract(epoch FROM now() - interval '2 years') * 1000000)::bigint + n * (63072000000000 / :rows) AS micros
      FROM generate_series(0::bigint, :rows - 1) AS n) AS numbered;
INSERT INTO accounts (account_id, currency, balance, account_seq, last_created_at)
SELECT account_id, 'USD', count(*) * 100, count(*), max(created_at) FROM transactions GROUP BY account_id;
DO $$ DECLARE statement text; BEGIN FOR statement IN SELECT back FROM dropped LOOP EXECUTE statement; END LOOP; END $$;
VACUUM (FREEZE, ANALYZE);
CHECKPOINT;
