ALTER TABLE dead_letter_replays DROP COLUMN detail;
COMMENT ON COLUMN dead_letter_replays.outcome IS NULL;
DROP INDEX dead_letters_by_time;
