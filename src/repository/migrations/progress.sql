-- name: migration_progress
-- Not in the DSL: views of the catalog.
SELECT (SELECT relname::text FROM pg_class WHERE oid = p.index_relid) AS index_name,
       p.phase,
       CASE WHEN p.blocks_total > 0 THEN 100 * p.blocks_done / p.blocks_total
            WHEN p.tuples_total > 0 THEN 100 * p.tuples_done / p.tuples_total END AS percent,
       (SELECT string_agg(format('process %s (%s, in a database transaction for %s)', b.pid,
                                 coalesce(nullif(b.application_name, ''), 'without a name'),
                                 coalesce(date_trunc('second', clock_timestamp() - b.xact_start)::text, 'an unknown time')),
                          ', ')
        FROM pg_stat_activity b WHERE b.pid = ANY(pg_blocking_pids(a.pid))) AS waits_for
FROM pg_stat_activity a
LEFT JOIN pg_stat_progress_create_index p ON p.pid = a.pid
WHERE a.pid = /* process_id */ $1
