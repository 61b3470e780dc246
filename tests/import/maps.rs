//! The maps that are shipped in `config/import`: every sample gives exactly these rows and balances, and a second import
//! only replays.

use std::path::{Path, PathBuf};

use ledger::import::{Args, OnError, Report};

use super::{Scene, args};

const ROWS: &str = "SELECT string_agg(concat_ws('|', t.account_id, t.account_seq, t.amount, t.balance_after, \
      to_char(t.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), coalesce(t.counterparty, '-'), \
      coalesce(t.description, '-')), chr(10) ORDER BY t.account_id, t.account_seq) FROM transactions t";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/import").join(name)
}

fn mapped(map: &str, sample: &str) -> Args {
    let file = shipped(&format!("samples/{sample}.csv"));
    Args { map: Some(shipped(&format!("{map}.toml"))), ..args(&file) }
}

/// Imports a sample twice, and compares the rows in the ledger.
async fn gives(map: &str, sample: &str, rejected: u64, rows: &[&str]) -> Report {
    let scene = Scene::new().await;
    let mut args = mapped(map, sample);
    if rejected > 0 {
        let rejects = Some(scene.path("rejects.csv"));
        args = Args { on_error: OnError::Skip, rejects, ..args };
    }
    let report = scene.import(&args).await.unwrap();
    assert!(report.is_fine(), "{report:?}");
    assert_eq!((report.rejected, report.replayed), (rejected, 0));
    let posted = scene.database.value(ROWS).await;
    assert_eq!(posted.lines().collect::<Vec<_>>(), rows, "{map}");
    scene.contains_whole_file(rows.len()).await;
    let again = scene.import(&args).await.unwrap();
    assert_eq!((again.created, again.replayed), (0, report.created), "{map}");
    report
}

/// Returns the number of compared balances and of those that differ.
fn balances(report: &Report) -> (u64, u64) {
    (report.balances_compared, report.currencies.values().map(|sums| sums.balance_differences).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn dkb() {
    let rows = [
        "dkb|1|318906|318906|2026-01-27 23:00:00|Muster AG|Gehalt",
        "dkb|2|318906|637812|2026-01-27 23:00:00|Muster AG|Gehalt",
        "dkb|3|-10000|627812|2026-01-28 23:00:00|Bäckerei|1,20 Pfand",
        "dkb|4|-185000|442812|2026-01-29 23:00:00|Muster Vermietung; Haus 3|Miete \"Januar\"",
    ];
    let report = gives("dkb", "dkb_girokonto", 0, &rows).await;
    assert_eq!((report.rows, report.rows_skipped), (4, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn sparkasse() {
    let rows = [
        "sparkasse|1|100000|100000|2025-12-31 23:00:00|Straßenbau Muster|Gutschrift: Rechnung 1",
        "sparkasse|2|-8990|91010|2026-01-14 23:00:00|Müller & Söhne|Lastschrift: Strom",
        "sparkasse|3|-350|90660|2026-01-30 23:00:00|-|Entgelt: Abschluss",
    ];
    let report = gives("sparkasse", "sparkasse_latin1", 0, &rows).await;
    assert_eq!(report.rows_skipped, 1, "the footer");
}

#[tokio::test(flavor = "multi_thread")]
async fn paypal_us() {
    let rows = [
        "paypal:EUR|1|156000|156000|2026-01-29 15:00:00|Muster \"Shop\" Ltd|Payment Received",
        "paypal:EUR|2|-6000|150000|2026-01-29 15:00:00|-|fee of 9TRIALAAA0000001",
        "paypal:EUR|3|-9210|140790|2026-02-01 02:04:11|-|General Currency Conversion",
        "paypal:USD|1|-10000|-10000|2026-02-01 02:04:10|Sample Tools Inc|Express Checkout Payment",
        "paypal:USD|2|10000|0|2026-02-01 02:04:11|-|General Currency Conversion",
    ];
    let report = gives("paypal-us", "paypal_activity_us", 0, &rows).await;
    // The balance in EUR fits. That in USD began with 100.00 before the first row of the file.
    assert_eq!(balances(&report), (4, 2));
    let difference = |code: &str| {
        let sums = report.currencies.iter().find(|(currency, _)| currency.code() == code).unwrap().1;
        sums.largest_difference.as_ref().map(|largest| largest.difference)
    };
    assert_eq!((difference("EUR"), difference("USD")), (None, Some(-10_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn paypal_de() {
    let rows = [
        "paypal:EUR|1|500000|500000|2026-01-27 07:00:00|-|Bankgutschrift",
        "paypal:EUR|2|-500000|0|2026-01-28 07:15:00|Ärzte ohne Muster|Rückzahlung",
        "paypal:EUR|3|156000|156000|2026-01-29 08:30:00|Muster AG|Website-Zahlung",
        "paypal:EUR|4|-6000|150000|2026-01-29 08:30:00|-|Entgelt 8TRIALBBB0000003",
        "paypal:EUR|5|-1299|148701|2026-01-31 17:04:10|Beispiel GmbH|Zahlung im Einzugsverfahren",
    ];
    let report = gives("paypal-de", "paypal_activity_de", 0, &rows).await;
    assert_eq!(balances(&report), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn stripe() {
    let rows = [
        "stripe:JPY|1|1500|1500|2026-01-31 20:00:07|-|Abo",
        "stripe:JPY|2|-54|1446|2026-01-31 20:00:07|-|fee of txn_trial0000000004",
        "stripe:USD|1|10000|10000|2026-01-28 09:00:07|-|order 77",
        "stripe:USD|2|-320|9680|2026-01-28 09:00:07|-|fee of txn_trial0000000001",
        "stripe:USD|3|-1500|8180|2026-01-29 09:00:07|-|Chargeback",
        "second line of the text",
        "stripe:USD|4|-1500|6680|2026-01-29 09:00:07|-|fee of txn_trial0000000002",
        "stripe:USD|5|-2500|4180|2026-01-31 22:10:07|-|REFUND FOR CHARGE (order 77, part)",
    ];
    let scene = Scene::new().await;
    let args = mapped("stripe", "stripe_balance_itemized");
    let report = scene.import(&args).await.unwrap();
    assert_eq!(scene.database.value(ROWS).await.lines().collect::<Vec<_>>(), rows);
    assert_eq!((report.created, report.rows_skipped), (7, 1));
    assert_eq!(scene.import(&args).await.unwrap().replayed, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn wise() {
    let rows = [
        "wise:EUR|1|100000|100000|2026-01-28 00:00:00|Muster AG|Received money from Muster AG / salary",
        "wise:EUR|2|27530|127530|2026-01-29 00:00:00|-|Converted 300.00 USD to 275.30 EUR",
        "wise:EUR|3|-25000|102530|2026-01-30 00:00:00|Bo Muster|Sent money to Bo Muster / rent",
        "wise:EUR|4|-63|102467|2026-01-30 00:00:00|-|Wise Charges for: TRANSFER-900000004",
        "wise:EUR|5|-950|101517|2026-01-31 00:00:00|Sample Cafe|Card transaction of 9.50 EUR issued by Sample Cafe",
    ];
    let report = gives("wise", "wise_statement_eur", 0, &rows).await;
    assert_eq!(balances(&report), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn revolut() {
    let rows = [
        "revolut:Current:EUR|1|50000|50000|2026-01-28 08:00:02|-|Payment from Muster",
        "revolut:Current:EUR|2|-10000|40000|2026-01-29 10:00:00|-|Exchanged to USD",
        "revolut:Current:EUR|3|-100|39900|2026-01-29 10:00:00|-|fee: Exchanged to USD",
        "revolut:Current:EUR|4|-450|39450|2026-02-01 03:00:00|-|Sample Cafe",
    ];
    let report = gives("revolut", "revolut_statement", 0, &rows).await;
    assert_eq!((balances(&report), report.rows_skipped), ((3, 0), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn paysim() {
    let rows = [
        "C1000000001|1|-120450|-120450|2016-01-01 01:00:00|M2000000001|payment",
        "C1000000002|1|-18100|-18100|2016-01-01 01:00:00|C3000000001|transfer",
        "C3000000001|1|-18100|-18100|2016-01-01 01:00:00|C3000000002|cash_out",
    ];
    let report = gives("paysim", "paysim", 1, &rows).await;
    assert_eq!(report.rows_skipped, 1, "an amount of zero");
}

#[tokio::test(flavor = "multi_thread")]
async fn ieee_cis() {
    let rows = [
        "card-10001|1|-6850|-6850|2017-12-01 00:00:00|-|W",
        "card-10002|1|-2900|-2900|2017-12-01 00:00:01|-|W",
        "card-10004|1|-5000|-5000|2017-12-01 00:01:39|-|H",
    ];
    gives("ieee-cis", "ieee_train_transaction", 2, &rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kaggle_bank_sheet() {
    let rows = [
        "1000001|1|-19500|-19500|2017-07-31 18:30:00|-|OPENING",
        "409000000001|1|100000000|100000000|2017-06-28 18:30:00|-|TRF FROM SAMPLE SERVICES",
        "409000000001|2|50000000|150000000|2017-07-04 18:30:00|-|FUND TRANSFE",
        "409000000001|3|-13390000|136610000|2017-07-17 18:30:00|-|CASHDEP",
        "409000000001|4|-1800000|134810000|2017-07-17 18:30:00|-|CASHDEP",
    ];
    let report = gives("kaggle-bank-sheet", "kaggle_bank_sheet", 0, &rows).await;
    assert_eq!(balances(&report), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn kaggle_bank_transactions() {
    let rows = [
        "AC90001|1|12629|12629|2026-01-10 18:16:08|M909|-",
        "AC90001|2|-1409|11220|2026-04-11 16:29:14|M915|-",
        "AC90002|1|-37624|-37624|2026-06-27 16:44:19|M952|-",
        "AC90002|2|1345|-36279|2026-10-16 17:51:24|M991|-",
        "AC90003|1|-18450|-18450|2026-05-05 16:32:11|M902|-",
    ];
    gives("kaggle-bank-transactions", "kaggle_bank_transactions_2", 0, &rows).await;
}

/// A later export contains the last days of an earlier one. Its twins are the same twins.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_overlaps_an_earlier_one_replays_the_common_rows_and_keeps_twins() {
    let scene = Scene::new().await;
    let headings = "Type,Product,Started Date,Completed Date,Description,Amount,Fee,Currency,State,Balance";
    let row = |day: u8, at: &str, amount: &str| {
        format!("CARD,Current,2026-01-{day:02} {at},2026-01-{day:02} {at},Cafe,{amount},0.00,EUR,COMPLETED,")
    };
    let coffee = row(2, "08:00:00", "-3.00");
    let first = [headings.to_owned(), row(1, "08:00:00", "50.00"), coffee.clone(), coffee.clone()];
    let second = [headings.to_owned(), coffee.clone(), coffee, row(3, "09:00:00", "-4.00")];
    let import = async |name: &str, rows: &[String]| {
        let file = scene.bytes(name, rows.join("\n").as_bytes());
        scene.import(&Args { map: Some(shipped("revolut.toml")), ..args(&file) }).await.unwrap()
    };
    assert_eq!(import("january.csv", &first).await.created, 3);
    let report = import("late-january.csv", &second).await;
    assert_eq!((report.created, report.replayed), (1, 2));
    scene.contains_whole_file(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_imports_an_export_by_its_map_and_reports_skipped_rows() {
    let scene = Scene::new().await;
    let (map, file) = (shipped("dkb.toml"), shipped("samples/dkb_girokonto.csv"));
    let arguments = ["import", "--map", map.to_str().unwrap(), file.to_str().unwrap(), "--output", "json"];
    let output = scene.run(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["created"], &report["skipped_by_map"]), (&4.into(), &1.into()));
    assert_eq!(report["currencies"][0]["net"], "4428.12");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_fit_its_map_is_refused_with_the_missing_headings() {
    let scene = Scene::new().await;
    let file = scene.bytes("other.csv", b"Datum;Betrag\n1.1.2026;5,00\n");
    let error = scene.refusal(&Args { map: Some(shipped("dkb.toml")), ..args(&file) }).await;
    assert!(error.contains("no row has all headings") && error.contains("\"Betrag (€)\" (line "), "{error}");
    let map = scene.bytes("wrong.toml", b"seperator = \";\"\n");
    let error = scene.refusal(&Args { map: Some(map), ..args(&file) }).await;
    assert!(error.contains("wrong.toml line 1: unknown field `seperator`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_the_first_rows_and_the_balances_at_the_end() {
    let scene = Scene::new().await;
    let (map, file) = (shipped("wise.toml"), shipped("samples/wise_statement_eur.csv"));
    let (map, file) = (map.to_str().unwrap(), file.to_str().unwrap());
    let output = scene.run(&["import", "--map", map, "--dry-run", "--output", "json", file]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let preview = &report["preview"];
    assert_eq!(preview["first_rows"].as_array().unwrap().len(), 5);
    assert_eq!(preview["first_rows"][1]["amount"], "275.30");
    assert_eq!(preview["balances"][0]["balance"], "1015.17");
    let output = scene.run(&["import", "--map", map, "--dry-run", file]);
    let tables = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(tables.contains("balance at the end") && tables.contains("1015.17"), "{tables}");
    assert_eq!(scene.count("transactions").await, "0");
    let output = scene.run(&["import", "--guess", file]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("separator = \",\""));
}
