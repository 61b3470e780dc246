ALTER TABLE fact_marks DROP COLUMN begin_id, DROP COLUMN end_id;
COMMENT ON TABLE fact_marks IS 'one row for each commit and each day that it touched; deleted when the day is rebuilt';
COMMENT ON COLUMN fact_marks.day IS 'UTC date whose facts must be rebuilt';
