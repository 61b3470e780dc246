-- The audit of `ledger republish`: one row for each run. A batch of outbox rows and its count commit together.
CREATE TABLE republications (
  id uuid PRIMARY KEY,
  requested_by text NOT NULL,
  requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  selection text NOT NULL,
  selected bigint NOT NULL,
  republished bigint NOT NULL DEFAULT 0,
  finished_at timestamptz
);
COMMENT ON COLUMN republications.selection IS 'the transactions that the operator selected, in words';
COMMENT ON COLUMN republications.republished IS 'events put into the outbox so far; equal to selected when the run has finished';

COMMENT ON COLUMN dead_letter_replays.outcome IS 'assessed, already_assessed, queued, already_queued, failing or dismissed';
COMMENT ON COLUMN dead_letter_replays.detail IS 'the error as a text for people; the note of a dismissal';
