-- name: verify_create_functions
-- Not in the DSL: it creates temporary functions.
-- Minor units as money with the currency, for the messages. More digits than the currency has stay visible.
CREATE OR REPLACE FUNCTION pg_temp.verify_money(minor numeric, code text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT coalesce((SELECT round(m.amount, greatest(c.decimals::int, min_scale(m.amount))) || ' ' || c.code
                   FROM currencies c, LATERAL (SELECT $1 * ('1e-' || c.decimals)::numeric AS amount) m
                   WHERE c.code = $2),
                  $1 || ' minor units') $$;
-- A field that differs, with both values; NULL for a field that does not.
CREATE OR REPLACE FUNCTION pg_temp.verify_difference(field text, found text, expected text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN $2 IS DISTINCT FROM $3
              THEN $1 || ' ' || coalesce($2, 'none') || ' instead of ' || coalesce($3, 'none') END $$;
-- The time in a transaction id.
CREATE OR REPLACE FUNCTION pg_temp.verify_id_time(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
  SELECT to_timestamp(('x' || lpad(left(translate($1::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0) $$
