//! Compares the decision with a model that posts one request at a time, and checks each case of idempotency.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::Amount;

fn posting(account: &str, key: &str, direction: Direction, minor: i64, code: &str) -> Arc<Posting> {
    Arc::new(Posting {
        account_id: AccountId::parse(account).expect("account"),
        idempotency_key: IdempotencyKey::parse(key).expect("key"),
        direction,
        amount: Amount::from_minor(minor).expect("amount"),
        currency: Currency::parse(code).expect("currency"),
        counterparty: None,
        description: None,
        metadata: None,
        reverses: None,
        created_at: None,
    })
}

fn moment(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).expect("in range")
}

fn run(
    accounts: &mut HashMap<AccountId, AccountState>,
    existing: &ExistingKeys,
    group: &[Arc<Posting>],
) -> Vec<Decision> {
    let mut counter = 0;
    let mut random = || {
        counter += 1;
        counter
    };
    decide(accounts, existing, group, &mut PostingClock { now: moment(1_000_000), random: &mut random })
}

#[test]
fn the_first_transaction_opens_the_account_and_fixes_its_currency() {
    let mut accounts = HashMap::new();
    let group = [
        posting("a", "1", Direction::Credit, 500, "EUR"),
        posting("a", "2", Direction::Credit, 500, "USD"),
        posting("a", "3", Direction::Debit, 700, "EUR"),
    ];
    let decisions = run(&mut accounts, &ExistingKeys::new(), &group);
    assert!(
        matches!(&decisions[0], Decision::Create(row) if row.account_seq == 1 && row.balance_after == 500)
    );
    let eur = Currency::parse("EUR").expect("known");
    assert_eq!(decisions[1], Decision::Refused(Refusal::CurrencyMismatch { account_currency: eur }));
    assert!(
        matches!(&decisions[2], Decision::Create(row) if row.account_seq == 2 && row.balance_after == -200)
    );
}

#[test]
fn the_same_key_in_one_group_replays_and_another_request_under_it_is_refused() {
    let mut accounts = HashMap::new();
    let group = [
        posting("a", "k", Direction::Credit, 500, "EUR"),
        posting("a", "k", Direction::Credit, 500, "EUR"),
        posting("a", "k", Direction::Credit, 501, "EUR"),
        posting("b", "k", Direction::Credit, 501, "EUR"),
    ];
    let decisions = run(&mut accounts, &ExistingKeys::new(), &group);
    let Decision::Create(first) = &decisions[0] else { panic!("{decisions:?}") };
    assert_eq!(decisions[1], Decision::Replay(first.clone()));
    assert_eq!(decisions[2], Decision::Mismatch { field: "amount" });
    assert!(matches!(decisions[3], Decision::Create(_)), "a key belongs to its account");
}

#[test]
fn a_key_is_checked_before_the_rules_so_a_later_limit_does_not_refuse_a_replay() {
    let mut accounts = HashMap::new();
    let debit = posting("a", "k", Direction::Debit, 500, "EUR");
    let first = run(&mut accounts, &ExistingKeys::new(), std::slice::from_ref(&debit));
    let Decision::Create(row) = &first[0] else { panic!("{first:?}") };
    let account = accounts.get_mut("a").expect("opened");
    account.min_balance = Some(0);
    let existing =
        ExistingKeys::from([((debit.account_id.clone(), debit.idempotency_key.clone()), row.clone())]);
    assert_eq!(run(&mut accounts, &existing, &[debit]), vec![Decision::Replay(row.clone())]);
}

#[test]
fn a_limit_refuses_debits_but_never_credits_also_within_a_group() {
    let mut accounts = HashMap::new();
    let mut account = AccountState::opened(Currency::parse("EUR").expect("known"));
    account.min_balance = Some(-100);
    accounts.insert(AccountId::parse("a").expect("account"), account);
    let group = [
        posting("a", "1", Direction::Debit, 60, "EUR"),
        posting("a", "2", Direction::Debit, 60, "EUR"),
        posting("a", "3", Direction::Debit, 40, "EUR"),
        posting("a", "4", Direction::Credit, 1, "EUR"),
    ];
    let decisions = run(&mut accounts, &ExistingKeys::new(), &group);
    assert!(matches!(decisions[0], Decision::Create(_)));
    assert_eq!(
        decisions[1],
        Decision::Refused(Refusal::LimitExceeded {
            balance: -60,
            min_balance: -100,
            currency: Currency::parse("EUR").expect("known")
        })
    );
    assert!(
        matches!(&decisions[2], Decision::Create(row) if row.balance_after == -100 && row.account_seq == 2)
    );
    assert!(matches!(decisions[3], Decision::Create(_)));
}

#[test]
fn time_never_goes_backwards_in_an_account() {
    let mut accounts = HashMap::new();
    let mut account = AccountState::opened(Currency::parse("EUR").expect("known"));
    account.last_created_at = Some(moment(2_000_000));
    accounts.insert(AccountId::parse("a").expect("account"), account);
    let mut imported = (*posting("a", "2", Direction::Credit, 1, "EUR")).clone();
    imported.created_at = Some(moment(1_999_999));
    let decisions = run(
        &mut accounts,
        &ExistingKeys::new(),
        &[posting("a", "1", Direction::Credit, 1, "EUR"), Arc::new(imported)],
    );
    assert!(matches!(&decisions[0], Decision::Create(row) if row.created_at == moment(2_000_000)));
    assert_eq!(
        decisions[1],
        Decision::Refused(Refusal::BeforeLastTransaction { last_created_at: moment(2_000_000) })
    );
}

#[test]
fn an_imported_transaction_of_the_future_is_refused_unless_it_is_in_the_ledger() {
    let imported = |key, micros| {
        let mut imported = (*posting("a", key, Direction::Credit, 1, "EUR")).clone();
        imported.created_at = Some(moment(micros));
        Arc::new(imported)
    };
    let group =
        [imported("1", 2_000_000), imported("2", 2_000_001), posting("a", "3", Direction::Credit, 1, "EUR")];
    let decisions = run(&mut HashMap::new(), &ExistingKeys::new(), &group);
    let Decision::Create(first) = &decisions[0] else { panic!("within a second: {decisions:?}") };
    assert_eq!(decisions[1], Decision::Refused(Refusal::InFuture { now: moment(1_000_000) }));
    assert!(matches!(&decisions[2], Decision::Create(row) if row.created_at == moment(2_000_000)));
    let mut stored = first.clone();
    stored.created_at = moment(9_000_000);
    let existing =
        [((stored.posting.account_id.clone(), stored.posting.idempotency_key.clone()), stored.clone())];
    let replayed = run(&mut HashMap::new(), &existing.into(), &[imported("1", 9_000_000)]);
    assert_eq!(replayed, [Decision::Replay(stored)]);
}

#[test]
fn the_ids_of_an_account_rise_with_account_seq_however_many_transactions_a_moment_has() {
    let mut accounts = HashMap::new();
    let group: Vec<_> = (0..2 * TRANSACTION_ID_SEQS + 2)
        .map(|n| posting("a", &n.to_string(), Direction::Credit, 1, "EUR"))
        .collect();
    let mut random = rand::random::<u64>;
    let mut clock = PostingClock { now: moment(1_000_000), random: &mut random };
    let decisions = decide(&mut accounts, &ExistingKeys::new(), &group, &mut clock);
    let rows = decisions.iter().map(|decision| match decision {
        Decision::Create(row) => (row.id, row.created_at),
        other => panic!("{other:?}"),
    });
    let rows: Vec<_> = rows.collect();
    assert!(rows.is_sorted_by(|(a, _), (b, _)| a < b));
    assert_eq!(
        rows.last().map(|(_, at)| *at),
        Some(moment(1_000_002)),
        "later where the sequence number wraps"
    );
}

#[test]
fn a_replay_with_another_created_at_is_another_request() {
    let mut accounts = HashMap::new();
    let at = |micros| {
        let mut imported = (*posting("a", "1", Direction::Credit, 1, "EUR")).clone();
        imported.created_at = Some(moment(micros));
        Arc::new(imported)
    };
    let group = [at(5), at(5), at(6), posting("a", "1", Direction::Credit, 1, "EUR")];
    let decisions = run(&mut accounts, &ExistingKeys::new(), &group);
    assert!(matches!(decisions[1], Decision::Replay(_)));
    assert_eq!(decisions[2], Decision::Mismatch { field: "created_at" });
    assert!(matches!(decisions[3], Decision::Replay(_)), "clients of the API send none");
}

#[test]
fn a_balance_that_would_leave_the_range_is_refused() {
    let mut accounts = HashMap::new();
    let group = [
        posting("a", "1", Direction::Credit, AMOUNT_MINOR_MAX, "JPY"),
        posting("a", "2", Direction::Credit, 1, "JPY"),
    ];
    let decisions = run(&mut accounts, &ExistingKeys::new(), &group);
    assert_eq!(decisions[1], Decision::Refused(Refusal::BalanceOutOfRange));
}

proptest! {
    /// The transactions, balances and sequence numbers do not depend on how requests are split into groups.
    #[test]
    fn the_split_into_groups_changes_nothing(
        requests in prop::collection::vec((0_u8..4, 0_u8..12, any::<bool>(), 1_i64..50), 1..60),
        cut in 1_usize..20,
    ) {
        let all: Vec<_> = requests.iter().map(|(account, key, credit, minor)| {
            let direction = if *credit { Direction::Credit } else { Direction::Debit };
            posting(&format!("a{account}"), &format!("k{key}"), direction, *minor, "EUR")
        }).collect();
        let one_by_one = outcome(&all, 1);
        prop_assert_eq!(&outcome(&all, cut), &one_by_one);
        prop_assert_eq!(&outcome(&all, all.len()), &one_by_one);
    }
}

type Outcome = (Vec<String>, BTreeMap<String, (i64, i64)>);

fn outcome(all: &[Arc<Posting>], group_size: usize) -> Outcome {
    let mut accounts = HashMap::new();
    let mut existing = ExistingKeys::new();
    let mut described = Vec::new();
    for group in all.chunks(group_size) {
        for (posting, decision) in group.iter().zip(run(&mut accounts, &existing.clone(), group)) {
            described.push(match &decision {
                Decision::Create(row) => format!("create {} {}", row.account_seq, row.balance_after),
                Decision::Replay(row) => format!("replay {}", row.account_seq),
                Decision::Mismatch { field } => format!("mismatch {field}"),
                Decision::Refused(refusal) => format!("{refusal:?}"),
            });
            if let Decision::Create(row) = decision {
                existing.insert((posting.account_id.clone(), posting.idempotency_key.clone()), row);
            }
        }
    }
    for (account, state) in &accounts {
        let rows: Vec<_> = existing.values().filter(|row| row.posting.account_id == *account).collect();
        assert_eq!(i64::try_from(rows.len()), Ok(state.account_seq));
        assert_eq!(rows.iter().map(|row| row.posting.signed_minor()).sum::<i64>(), state.balance);
    }
    let balances = accounts
        .into_iter()
        .map(|(id, state)| (id.to_string(), (state.account_seq, state.balance)))
        .collect();
    (described, balances)
}
