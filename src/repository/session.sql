-- name: session_settings
-- Not in the DSL: settings. A setting that this version of the server does not have is skipped.
SELECT count(set_config(name, value, false))
FROM (VALUES
  -- Durability: `remote_apply` is the only value stronger than `on`.
  ('synchronous_commit',
   CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END),
  -- The rows that statements see: the isolation outside of database transactions, and no row hidden without an error.
  ('default_transaction_isolation', 'read committed'),
  ('row_security', 'off'),
  -- Waits: only the limits of the configuration apply.
  ('lock_timeout', '0'),
  ('idle_session_timeout', '0'),
  ('transaction_timeout', '0'),
  -- Texts in statements and results: days are days of UTC, and the catalog prints names as the migrations write them.
  ('TimeZone', 'UTC'),
  ('DateStyle', 'ISO, YMD'),
  ('IntervalStyle', 'postgres'),
  ('bytea_output', 'hex'),
  ('extra_float_digits', '1'),
  ('quote_all_identifiers', 'off'),
  ('standard_conforming_strings', 'on'),
  ('exit_on_error', 'off')
) AS wanted (name, value)
WHERE current_setting(name, true) IS NOT NULL
