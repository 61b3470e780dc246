//! A load client that keeps a rate: request number i is due at i / rate, and its latency counts from that moment, so a
//! server that stalls cannot hide it. One thread and one connection each; std only, so that `rustc -O` is all it needs.
//!
//! paced ADDRESS RATE SECONDS CONNECTIONS ACCOUNTS IDS_FILE
//!
//! Posts transactions as post.lua does. Prints one line of JSON; writes the id of every acknowledged transaction to
//! IDS_FILE. Every request that was due is sent and seen through; any answer but 201 ends the run.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

struct Plan {
    address: String,
    next: AtomicU64,
    total: u64,
    rate: f64,
    accounts: u64,
    started: Instant,
    run: u128,
}

/// Microseconds from due to answered, and the id.
type Answer = (u32, String);

fn connection(plan: &Plan) -> Outcome<Vec<Answer>> {
    let stream = TcpStream::connect(&plan.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut answers = Vec::new();
    loop {
        let i = plan.next.fetch_add(1, Ordering::Relaxed);
        if i >= plan.total {
            return Ok(answers);
        }
        let due = plan.started + Duration::from_secs_f64(i as f64 / plan.rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        writer.write_all(request(plan, i).as_bytes())?;
        let body = answer(&mut reader)?;
        let elapsed = due.elapsed();
        let id = body.split_once("\"id\":\"").and_then(|(_, rest)| rest.split_once('"'));
        let (id, _) = id.ok_or_else(|| format!("an answer without an id: {body}"))?;
        answers.push((u32::try_from(elapsed.as_micros())?, id.to_owned()));
    }
}

fn request(plan: &Plan, i: u64) -> String {
    // Neighbours go to accounts far apart (2^64 divided by the golden ratio).
    let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let account = (mixed >> 32) % plan.accounts + 1;
    let direction = if i % 3 == 0 { "debit" } else { "credit" };
    let (whole, cents) = ((mixed >> 20) % 500 + 1, (mixed >> 10) % 100);
    let body = format!(
        r#"{{"account_id":"acct-{account}","amount":"{whole}.{cents:02}","currency":"USD","direction":"{direction}"}}"#
    );
    format!(
        "POST /transactions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\nidempotency-key: {}-{i}\r\ncontent-length: {}\r\n\r\n{body}",
        plan.address,
        plan.run,
        body.len()
    )
}

fn answer(reader: &mut BufReader<TcpStream>) -> Outcome<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body)?;
    if status != "201" {
        return Err(format!("status {status}: {body}").into());
    }
    Ok(body)
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, rate, seconds, connections, accounts, ids_file] = arguments.as_slice() else {
        return Err("usage: paced ADDRESS RATE SECONDS CONNECTIONS ACCOUNTS IDS_FILE".into());
    };
    let rate: f64 = rate.parse()?;
    let plan = Arc::new(Plan {
        address: address.clone(),
        next: AtomicU64::new(0),
        total: (rate * seconds.parse::<f64>()?) as u64,
        rate,
        accounts: accounts.parse()?,
        started: Instant::now() + Duration::from_millis(100),
        run: std::time::UNIX_EPOCH.elapsed()?.as_nanos(),
    });
    let threads: Vec<_> = (0..connections.parse::<usize>()?)
        .map(|_| {
            let plan = Arc::clone(&plan);
            std::thread::Builder::new().stack_size(256 * 1024).spawn(move || connection(&plan))
        })
        .collect::<Result<_, _>>()?;
    let mut answers = Vec::new();
    for thread in threads {
        answers.extend(thread.join().map_err(|_| "a thread broke")??);
    }
    let elapsed = plan.started.elapsed().as_secs_f64();
    let mut ids = std::io::BufWriter::new(std::fs::File::create(ids_file)?);
    for (_, id) in &answers {
        writeln!(ids, "{id}")?;
    }
    ids.flush()?;
    let mut micros: Vec<u32> = answers.iter().map(|(micros, _)| *micros).collect();
    micros.sort_unstable();
    let at = |share: f64| {
        micros.get((micros.len() as f64 * share) as usize).or(micros.last()).copied().unwrap_or(0)
    };
    println!(
        r#"{{"acknowledged":{},"rate":{:.1},"p50_ms":{:.3},"p99_ms":{:.3},"max_ms":{:.3}}}"#,
        answers.len(),
        answers.len() as f64 / elapsed,
        f64::from(at(0.5)) / 1000.0,
        f64::from(at(0.99)) / 1000.0,
        f64::from(at(1.0)) / 1000.0
    );
    Ok(())
}
