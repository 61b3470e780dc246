-- name: open_missing_accounts
-- diesel's DSL would need another prepared statement for each number of rows.
INSERT INTO accounts (account_id, currency)
SELECT * FROM unnest(/* account_ids */ $1, /* currencies */ $2)
ON CONFLICT (account_id) DO NOTHING
