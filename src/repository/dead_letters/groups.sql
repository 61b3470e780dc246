-- name: dead_letter_groups
-- Not in the DSL: a recursive query. It jumps along the index from group to group, however many dead letters there are.
WITH RECURSIVE of_letters (consumer_group) AS (
  (SELECT min(consumer_group) FROM dead_letters WHERE record_offset IS NOT NULL)
  UNION ALL
  SELECT (SELECT min(d.consumer_group) FROM dead_letters d
          WHERE d.record_offset IS NOT NULL AND d.consumer_group > g.consumer_group)
  FROM of_letters g WHERE g.consumer_group IS NOT NULL
)
SELECT consumer_group COLLATE "C" AS consumer_group FROM of_letters WHERE consumer_group IS NOT NULL
UNION
SELECT consumer_group FROM consumer_positions
ORDER BY consumer_group
