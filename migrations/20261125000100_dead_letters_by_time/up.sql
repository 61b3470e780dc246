-- Dead letters are listed by time, and each replay that fails records its error.

CREATE INDEX dead_letters_by_time ON dead_letters (created_at, id);

ALTER TABLE dead_letter_replays ADD COLUMN detail text NOT NULL DEFAULT '';
COMMENT ON COLUMN dead_letter_replays.outcome IS 'assessed, already_assessed, queued, already_queued or failing';
COMMENT ON COLUMN dead_letter_replays.detail IS 'the error as a text for people';
