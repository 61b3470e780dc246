-- Which older binaries may run on this schema. A migration that breaks the statements of older binaries raises the
-- version to that of the oldest release which can run on it.
CREATE TABLE schema_compatibility (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  oldest_binary text NOT NULL
);
INSERT INTO schema_compatibility (oldest_binary) VALUES ('20261130100100');
COMMENT ON TABLE schema_compatibility IS 'one row: which older binaries may run on this schema';
COMMENT ON COLUMN schema_compatibility.oldest_binary IS 'a binary runs if it contains the migration with this version';
