ALTER TABLE broker_records RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_cost_delay);
ALTER TABLE broker_partitions DROP COLUMN bytes;
