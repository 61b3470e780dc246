-- name: server_properties
-- Not in the DSL: settings, and a view of the catalog. Only a member of pg_read_all_settings sees the file of a setting.
SELECT current_setting('server_version_num')::integer AS version_num,
       current_setting('server_version') AS version,
       current_database()::text AS database,
       current_setting('server_encoding') AS encoding,
       (SELECT string_agg(format('%s = off (%s)', name, coalesce(sourcefile, source)), ', ' ORDER BY name)
        FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off') AS not_durable
