-- name: migrate_lock_holder
-- Not in the DSL: views of the catalog. The two halves of the key are separate columns.
SELECT a.pid AS process_id,
       format('process %s of PostgreSQL (%s, connected from %s for %s)', a.pid, a.application_name,
              coalesce(host(a.client_addr), 'the same machine'),
              date_trunc('second', clock_timestamp() - a.backend_start)) AS description
FROM pg_locks l
JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = /* key */ $1
LIMIT 1
