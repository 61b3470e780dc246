-- name: verify_currency_errors
-- Not in the DSL: it joins arrays as a table.
SELECT count(*) OVER () AS total, json_build_object('currency', coalesce(c.code, e.code))::text AS ids,
  'currency ' || coalesce(c.code, e.code) || ': '
    || pg_temp.verify_difference('decimals', c.decimals::text, e.decimals::text) AS example
FROM currencies c
FULL JOIN unnest(/* codes */ $1, /* decimals */ $2) AS e (code, decimals) ON e.code = c.code
WHERE c.decimals IS DISTINCT FROM e.decimals
ORDER BY coalesce(c.code, e.code) LIMIT pg_temp.verify_examples()
