-- name: advance_sequences
-- Not in the DSL: it sets the state of sequences.
SELECT setval(b.sequence::regclass, b.highest_id)
FROM unnest(/* sequences */ $1, /* highest ids */ $2) AS b (sequence, highest_id)
