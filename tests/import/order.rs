//! The order of a file is checked before its first row is posted, and the true cause of an unreadable file is named.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use ledger::import::{Args, OnError, Order};

use super::{Scene, args};

const NEWEST_FIRST: [&str; 4] = [
    "n,4,debit,4.00,EUR,2026-01-30T08:00:00Z,,,,96.00",
    "n,3,credit,50.00,EUR,2026-01-29T08:00:00Z,,,,100.00",
    "n,2,credit,30.00,EUR,2026-01-28T08:00:00Z,,,,50.00",
    "n,1,credit,20.00,EUR,2026-01-27T08:00:00Z,,,,20.00",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_newest_first_file_is_refused_whole_and_posted_in_reverse_on_request() {
    let scene = Scene::new().await;
    let file = scene.file("newest.csv", &NEWEST_FIRST);
    for on_error in [OnError::Stop, OnError::Skip] {
        let error = scene.refusal(&Args { on_error, ..args(&file) }).await;
        assert!(error.contains("row 2 is earlier") && error.contains("--order newest-first"), "{error}");
    }
    for order in [Order::NewestFirst, Order::ByTime] {
        let report = scene.import(&Args { order: Some(order), ..args(&file) }).await.unwrap();
        assert_eq!((report.rows, report.balances_compared), (4, 4));
        assert_eq!(report.currencies.values().next().unwrap().balance_differences, 0);
    }
    scene.contains_whole_file(4).await;
    let oldest: Vec<&str> = NEWEST_FIRST.iter().rev().copied().collect();
    let args = Args { order: Some(Order::NewestFirst), ..args(&scene.file("oldest.csv", &oldest)) };
    let error = scene.import(&args).await.unwrap_err().to_string();
    assert!(error.contains("leave out the order"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_day_in_reverse_are_noticed_by_their_balances() {
    let scene = Scene::new().await;
    let same_day = NEWEST_FIRST.map(|row| {
        let (before, after) = row.split_once("2026-01-").unwrap();
        format!("{before}2026-01-31{}", &after[2..])
    });
    let rows: Vec<&str> = same_day.iter().map(String::as_str).collect();
    let file = scene.file("day.csv", &rows);
    let error = scene.refusal(&args(&file)).await;
    assert!(error.contains("reverse order: 3 expected balances"), "{error}");
    let args = Args { order: Some(Order::NewestFirst), ..args(&file) };
    scene.import(&args).await.unwrap();
    let balances = "SELECT string_agg(balance_after::text, ' ' ORDER BY account_seq) FROM transactions";
    assert_eq!(scene.database.value(balances).await, "2000 5000 10000 9600");
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_rows_are_a_failure_unless_a_file_lists_them() {
    let scene = Scene::new().await;
    let rows = ["a,=1+1,up,1.00,EUR,,,,,", "a,k2,credit,1.00,EUR,,,,,"];
    let file = scene.file("mixed.csv", &rows);
    let skip = Args { on_error: OnError::Skip, ..args(&file) };
    assert!(!scene.import(&skip).await.unwrap().is_fine());
    let rejects = scene.path("rejects.csv");
    let listed = Args { rejects: Some(rejects.clone()), ..skip };
    assert!(scene.import(&listed).await.unwrap().is_fine());
    let list = std::fs::read_to_string(rejects).unwrap();
    assert!(list.contains(",'=1+1,"), "a spreadsheet does not run the key: {list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_true_cause_of_an_unreadable_file_is_named() {
    let scene = Scene::new().await;
    let text = "account_id;idempotency_key;direction;amount;currency\na;k;credit;1.00;EUR\n";
    let commas = text.replace(';', ",");
    let utf16: Vec<u8> =
        [0xfeff_u16].into_iter().chain(commas.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let mut garbage = GzEncoder::new(Vec::new(), Compression::default());
    garbage.write_all(commas.as_bytes()).unwrap();
    let mut garbage = garbage.finish().unwrap();
    let mut zeros = garbage.clone();
    garbage.extend(b"garbage");
    zeros.extend([0; 512]);
    for (name, bytes, cause) in [
        ("semicolon.csv", text.as_bytes(), "separator = \";\""),
        ("tab.csv", text.replace(';', "\t").as_bytes(), "separator = \"\\t\""),
        ("utf16.csv", &utf16, "encoding = \"UTF-16LE\""),
        ("latin.csv", b"Gl\xe4ubiger,Betrag\n", "encoding = \"windows-1252\""),
        ("preamble.csv", format!("Konto,1\nStand,2\n{commas}").as_bytes(), "headings on line 3"),
        ("garbage.csv.gz", &garbage, "bytes after the end of its gzip data"),
    ] {
        let error = scene.refusal(&args(&scene.bytes(name, bytes))).await;
        assert!(error.contains(name) && error.contains(cause), "{error}");
    }
    let map = "account_id = \"{account_id}\"\ncurrency = \"{currency}\"\nidempotency_key = \"{idempotency_key}\"\n\
               amount = { column = \"amount\" }\n[direction]\ncolumn = \"direction\"\ncredit = [\"credit\"]\n";
    for (name, bytes, first) in [
        ("semicolon.csv", text.as_bytes(), "separator = \";\""),
        ("utf16.csv", &utf16, "encoding = \"utf-16le\""),
    ] {
        let map = scene.bytes("own.toml", format!("{first}\n{map}").as_bytes());
        let args = Args { map: Some(map), ..args(&scene.bytes(name, bytes)) };
        assert_eq!(scene.import(&args).await.unwrap().rows, 1, "{name}");
    }
    assert_eq!(scene.import(&args(&scene.bytes("zeros.csv.gz", &zeros))).await.unwrap().replayed, 1);
}
