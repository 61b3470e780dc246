-- name: server_properties
-- Not in the DSL: settings, and a view of the catalog. Only a member of pg_read_all_settings sees the file of a setting.
SELECT current_setting('server_version_num')::integer AS version_num,
       current_setting('server_version') AS version,
       current_database()::text AS database,
       current_setting('server_encoding') AS encoding,
       pg_backend_pid() AS process_id,
       current_user::text AS user_name,
       -- The first schema of search_path that exists and that the user may use.
       current_schema()::text AS schema,
       (SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM pg_class c
        WHERE c.relnamespace = current_schema()::text::regnamespace AND c.relkind IN ('r', 'p')
          AND c.relname = ANY(/* tables */ $1) AND row_security_active(c.oid)) AS filtered_tables,
       (SELECT format('%s = replica (%s)', name, coalesce(sourcefile, source))
        FROM pg_settings WHERE name = 'session_replication_role' AND setting = 'replica') AS without_triggers,
       (SELECT string_agg(format('%s = off (%s)', name, coalesce(sourcefile, source)), ', ' ORDER BY name)
        FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off') AS not_durable
