//! Accounts: look-ups, pages, the states that posting decides from, opening an account, and balances in the past.

mod look_up;
mod opening;
mod pages;
mod point_in_time;
mod row;
mod states;

pub use look_up::{find, find_all};
pub use opening::open_or_limit;
pub use pages::{AccountPage, AccountPageRequest, page};
pub(super) use point_in_time::seq_range;
pub use point_in_time::state_at;
pub use row::Account;
pub(super) use row::AccountRow;
pub use states::{open_and_lock, states};
