-- A mark names the ids that its commit touched, so that `aggregate` reads and writes only their facts.

-- Shorter than the limit of the writers, whose statements queue behind this lock.
SET LOCAL lock_timeout = '2s';

-- Null in marks that name no ids: those of older binaries, and those that an operator inserts.
ALTER TABLE fact_marks
  ADD COLUMN begin_id uuid,
  ADD COLUMN end_id uuid;

COMMENT ON TABLE fact_marks IS 'ranges of transactions whose facts are out of date, at least one for each commit and day; deleted when the facts are updated';
COMMENT ON COLUMN fact_marks.day IS 'UTC date of the transactions';
COMMENT ON COLUMN fact_marks.begin_id IS 'first id of the transactions; null: all of the day';
COMMENT ON COLUMN fact_marks.end_id IS 'the id after the last one; null: all of the day';
