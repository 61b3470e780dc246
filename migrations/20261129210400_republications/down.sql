COMMENT ON COLUMN dead_letter_replays.outcome IS 'assessed, already_assessed, queued, already_queued or failing';
COMMENT ON COLUMN dead_letter_replays.detail IS 'the error as a text for people';
DROP TABLE republications;
