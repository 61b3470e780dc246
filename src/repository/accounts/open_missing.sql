-- name: open_missing_accounts
-- Not in the DSL: an insert of many rows would have a text of its own for each number of rows.
INSERT INTO accounts (account_id, currency)
SELECT * FROM unnest(/* account_ids */ $1, /* currencies */ $2)
ON CONFLICT (account_id) DO NOTHING
