//! Fault tests: processes are killed and frozen at the worst moments, brokers and databases fail, networks break.
//! Afterwards nothing is lost, doubled or out of order. `docs/faults.md` lists every fault, its test and the planted
//! bug that made the test fail.

mod consumers;
mod outages;
mod relays;
mod replicas;
mod scaling;
mod shutdown;
