DROP FUNCTION ledger_clock_differs();
