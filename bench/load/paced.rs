//! A load client with a fixed rate. Request number i is due at i / rate, and its latency counts from that moment, so a
//! server that stalls cannot hide it. One thread waits for all connections, so the client needs little of the CPU that
//! it measures. It uses only std and three calls of the C library (Linux), so `rustc -O` can build it.
//!
//! paced ADDRESS RATE SECONDS CONNECTIONS ACCOUNTS IDS_FILE
//!
//! Posts transactions like post.lua. Prints one line of JSON and writes the id of every acknowledged transaction to
//! IDS_FILE. Every due request is sent and completed; any response but 201 ends the run.
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

mod epoll {
    //! Waits for many sockets with a timeout below a millisecond.
    use std::ffi::{c_int, c_void};
    use std::io::{Error, Result};
    use std::time::Duration;

    #[repr(C)]
    #[cfg_attr(target_arch = "x86_64", repr(packed))]
    #[derive(Clone, Copy)]
    struct Event {
        events: u32,
        data: u64,
    }

    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }

    unsafe extern "C" {
        fn epoll_create1(flags: c_int) -> c_int;
        fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut Event) -> c_int;
        fn epoll_pwait2(
            epoll: c_int,
            events: *mut Event,
            max: c_int,
            timeout: *const Timespec,
            mask: *const c_void,
        ) -> c_int;
    }

    const ADD: c_int = 1;
    const READABLE: u32 = 1;

    pub struct Epoll {
        fd: c_int,
        events: Vec<Event>,
    }

    impl Epoll {
        pub fn new(sockets: usize) -> Result<Self> {
            // SAFETY: no pointer is passed.
            let fd = unsafe { epoll_create1(0) };
            if fd < 0 {
                return Err(Error::last_os_error());
            }
            Ok(Self { fd, events: vec![Event { events: 0, data: 0 }; sockets] })
        }

        pub fn add(&mut self, fd: c_int, number: usize) -> Result<()> {
            let mut event = Event { events: READABLE, data: number as u64 };
            // SAFETY: the event lives until the call returns, and the call copies it.
            match unsafe { epoll_ctl(self.fd, ADD, fd, &mut event) } {
                0 => Ok(()),
                _ => Err(Error::last_os_error()),
            }
        }

        /// Returns the numbers of the readable sockets.
        pub fn wait(&mut self, limit: Duration) -> Result<Vec<usize>> {
            let limit =
                Timespec { seconds: limit.as_secs() as i64, nanoseconds: limit.subsec_nanos().into() };
            let max = self.events.len() as c_int;
            // SAFETY: the vector has a capacity of `max`, and no signal mask is passed.
            let ready =
                unsafe { epoll_pwait2(self.fd, self.events.as_mut_ptr(), max, &limit, std::ptr::null()) };
            if ready < 0 {
                return Err(Error::last_os_error());
            }
            Ok(self.events.iter().take(ready as usize).map(|event| { event.data } as usize).collect())
        }
    }
}

struct Plan {
    address: String,
    total: u64,
    rate: f64,
    accounts: u64,
    started: Instant,
    run: u128,
}

impl Plan {
    fn due(&self, i: u64) -> Instant {
        self.started + Duration::from_secs_f64(i as f64 / self.rate)
    }

    fn request(&self, i: u64) -> String {
        // Consecutive requests go to distant accounts (2^64 divided by the golden ratio).
        let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let account = (mixed >> 32) % self.accounts + 1;
        let direction = if i % 3 == 0 { "debit" } else { "credit" };
        let (whole, cents) = ((mixed >> 20) % 500 + 1, (mixed >> 10) % 100);
        let body = format!(
            r#"{{"account_id":"acct-{account}","amount":"{whole}.{cents:02}","currency":"USD","direction":"{direction}"}}"#
        );
        format!(
            "POST /transactions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\nidempotency-key: {}-{i}\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            self.run,
            body.len()
        )
    }
}

/// A socket and the received part of its response.
struct Connection {
    stream: TcpStream,
    due: Instant,
    waits: bool,
    received: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, due: Instant::now(), waits: false, received: Vec::new() })
    }

    fn send(&mut self, plan: &Plan, i: u64) -> Outcome<()> {
        self.due = plan.due(i);
        self.waits = true;
        // A request is much smaller than an empty socket buffer.
        Ok(self.stream.write_all(plan.request(i).as_bytes())?)
    }

    /// Returns the id in the response once the response is complete.
    fn receive(&mut self) -> Outcome<Option<String>> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(length) => self.received.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let text = std::str::from_utf8(&self.received)?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        });
        if body.len() < length.ok_or_else(|| format!("an answer without a length: {head}"))?? {
            return Ok(None);
        }
        if head.split(' ').nth(1) != Some("201") {
            return Err(text.to_owned().into());
        }
        let id = body.split_once("\"id\":\"").and_then(|(_, rest)| rest.split_once('"'));
        let id = id.ok_or_else(|| format!("an answer without an id: {body}"))?.0.to_owned();
        self.received.clear();
        self.waits = false;
        Ok(Some(id))
    }
}

/// Microseconds from due to response, and the id.
type Answer = (u32, String);

fn keep_the_rate(plan: &Plan, connections: &mut [Connection]) -> Outcome<Vec<Answer>> {
    let mut epoll = epoll::Epoll::new(connections.len())?;
    for (number, connection) in connections.iter().enumerate() {
        epoll.add(connection.stream.as_raw_fd(), number)?;
    }
    // Use the connection that was idle longest, so that all connections are used at any rate.
    let mut idle: VecDeque<usize> = (0..connections.len()).collect();
    let mut answers = Vec::new();
    let mut next = 0;
    while next < plan.total || idle.len() < connections.len() {
        while next < plan.total && plan.due(next) <= Instant::now() {
            let Some(number) = idle.pop_front() else { break };
            connections[number].send(plan, next)?;
            next += 1;
        }
        let wait = match next < plan.total && !idle.is_empty() {
            true => plan.due(next).saturating_duration_since(Instant::now()),
            false => ANSWER_TIME_MAX,
        };
        for number in epoll.wait(wait)? {
            let connection = &mut connections[number];
            if let Some(id) = connection.receive()? {
                answers.push((u32::try_from(connection.due.elapsed().as_micros())?, id));
                idle.push_back(number);
            }
        }
        let now = Instant::now();
        let late = |connection: &Connection| connection.waits && now > connection.due + ANSWER_TIME_MAX;
        if connections.iter().any(late) {
            return Err(format!("no answer within {ANSWER_TIME_MAX:?}").into());
        }
    }
    Ok(answers)
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, rate, seconds, connections, accounts, ids_file] = arguments.as_slice() else {
        return Err("usage: paced ADDRESS RATE SECONDS CONNECTIONS ACCOUNTS IDS_FILE".into());
    };
    let rate: f64 = rate.parse()?;
    let mut connections =
        (0..connections.parse::<usize>()?).map(|_| Connection::open(address)).collect::<Outcome<Vec<_>>>()?;
    let plan = Plan {
        address: address.clone(),
        total: (rate * seconds.parse::<f64>()?) as u64,
        rate,
        accounts: accounts.parse()?,
        started: Instant::now() + Duration::from_millis(100),
        run: std::time::UNIX_EPOCH.elapsed()?.as_nanos(),
    };
    let answers = keep_the_rate(&plan, &mut connections)?;
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
