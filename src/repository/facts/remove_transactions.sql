-- name: remove_fact_transactions
-- Not in the DSL: it needs OFFSET 0 in a subquery.
-- Removes the facts of a day whose transaction is not in the ledger. OFFSET 0 keeps one probe of an index for each fact.
DELETE FROM fact_transactions f
WHERE f.business_date = /* day */ $1
  AND NOT EXISTS (SELECT FROM transactions t
                  WHERE t.id = f.transaction_id AND t.id >= /* first id of the day */ $2
                    AND t.id < /* first id of the next day */ $3 OFFSET 0)
