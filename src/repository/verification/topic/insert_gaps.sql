-- name: verify_insert_gaps
-- Not in the DSL: it fills a temporary table from arrays.
INSERT INTO verify_gaps
SELECT * FROM unnest(/* account_ids */ $1, /* first seqs */ $2, /* last seqs */ $3)
