-- Fails the statement that writes a group if the moment of its decisions is not that of this server's clock.
CREATE OR REPLACE FUNCTION ledger_clock_differs() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the moment of the group differs from the clock of this server' USING ERRCODE = 'LG003';
END $$;
