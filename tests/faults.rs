//! Fault tests: processes are killed and frozen at the worst moments, brokers and databases go away, networks fail; the
//! system is whole afterwards. `docs/faults.md` lists every fault, its test and the planted bug that the test was seen
//! to fail on.

mod consumers;
mod outages;
mod relays;
mod replicas;
mod scaling;
mod shutdown;
