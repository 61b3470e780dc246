-- Dead letters are looked at newest first, and each replay says why it failed where it did.

CREATE INDEX dead_letters_by_time ON dead_letters (created_at, id);

ALTER TABLE dead_letter_replays ADD COLUMN detail text NOT NULL DEFAULT '';
COMMENT ON COLUMN dead_letter_replays.outcome IS 'assessed, already_assessed, queued, already_queued or failing';
COMMENT ON COLUMN dead_letter_replays.detail IS 'for a person: why it still fails';
