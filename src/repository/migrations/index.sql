-- name: index_of_a_migration
-- Not in the DSL: the catalog.
SELECT indisvalid AS is_valid, pg_get_indexdef(indexrelid, 0, true) AS definition
FROM pg_index WHERE indexrelid = to_regclass(/* name */ $1)
