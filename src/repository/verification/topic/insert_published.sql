-- name: verify_insert_published
-- Not in the DSL: it fills a temporary table from arrays.
INSERT INTO verify_published
SELECT * FROM unnest(/* account_ids */ $1, /* first seqs */ $2, /* next seqs */ $3)
