-- name: create_republish_selection
-- Not in the DSL: it creates a temporary table.
CREATE TEMP TABLE republish_selected (number bigint PRIMARY KEY, account_id text COLLATE "C", account_seq bigint)
