-- name: verify_protections
-- Not in the DSL: it reads the catalog.
-- Each constraint, unique index and NOT NULL of the tables, as the statement that creates it, and the problem that keeps
-- it from working.
SELECT definition, problem FROM (
  SELECT 'ALTER TABLE ' || c.relname || ' ADD CONSTRAINT ' || k.conname || ' '
      || replace(pg_get_constraintdef(k.oid, true), ' NOT VALID', '') AS definition,
    CASE WHEN NOT k.convalidated THEN 'it was not checked for old rows'
         WHEN NOT coalesce(i.indisvalid AND i.indisready, true) THEN 'its index is not valid; REINDEX rebuilds it'
         WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgconstraint = k.oid AND t.tgenabled NOT IN ('O', 'A'))
         THEN 'its triggers are disabled; ALTER TABLE … ENABLE TRIGGER ALL enables them' END AS problem
  FROM pg_constraint k
  JOIN pg_class c ON c.oid = k.conrelid
  LEFT JOIN pg_index i ON i.indexrelid = k.conindid AND k.contype IN ('p', 'u')
  WHERE c.relnamespace = current_schema()::text::regnamespace AND c.relname = ANY (/* tables */ $1)
    AND k.contype IN ('c', 'f', 'p', 'u')
  UNION ALL
  SELECT pg_get_indexdef(i.indexrelid, 0, true),
    CASE WHEN NOT (i.indisvalid AND i.indisready) THEN 'it is not valid; REINDEX rebuilds it' END
  FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
  WHERE c.relnamespace = current_schema()::text::regnamespace AND c.relname = ANY ($1) AND i.indisunique
    AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))
  UNION ALL
  SELECT 'ALTER TABLE ' || c.relname || ' ALTER COLUMN ' || a.attname || ' SET NOT NULL',
    -- Only PostgreSQL 18 and later can keep such a constraint.
    CASE WHEN EXISTS (SELECT FROM pg_constraint k
                      WHERE k.conrelid = c.oid AND k.contype = 'n' AND NOT k.convalidated AND a.attnum = ANY (k.conkey))
         THEN 'it was not checked for old rows' END
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
  WHERE c.relnamespace = current_schema()::text::regnamespace AND c.relname = ANY ($1)
    AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull
) AS protections
ORDER BY definition COLLATE "C"
