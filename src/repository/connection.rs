//! Opens connections to PostgreSQL, with or without TLS, with all timeouts set.
//!
//! - A new connection has the settings that the code depends on, whatever the defaults of server, database, role and URL
//!   are (see [`super::session`]). They are set after the connect, because a pooler refuses most parameters at the start
//!   of a session.
//! - A URL may name several hosts. Each host gets an equal share of the time until one accepts writes. A primary that is
//!   down, hangs or has become a standby is skipped.
//! - A connection with TLS never falls back to plain text, and TLS always verifies certificate chain and host name (see
//!   [`super::tls`]).

use std::{path::Path, str::FromStr, time::Duration};

use diesel::ConnectionError;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use secrecy::ExposeSecret;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_postgres::{
    NoTls, Socket,
    config::{Host, SslMode, SslNegotiation, TargetSessionAttrs},
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Connection, RepositoryError,
    server::takes_writes,
    session,
    sqlstate::{Encrypted, PlainText, Stream},
    tls,
};
use crate::config::Database;

const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
const PORT_DEFAULT: u16 = 5432;
const DEFAULT_URL_ADVICE: &str = "; database.url has its default: set LEDGER_DATABASE__URL, for example to the URL that `ledger dev` prints";

/// Opens one connection. `role` becomes the `application_name`. Takes at most `database.connect_timeout` for all hosts
/// together.
pub async fn connect(database: &Database, role: &str) -> Result<Connection, RepositoryError> {
    let hosts = one_for_each_host(&options(database, role)?);
    let share = database.connect_timeout / u32::try_from(hosts.len()).unwrap_or(1).max(1);
    let mut addresses = Vec::with_capacity(hosts.len());
    let mut details = Vec::with_capacity(hosts.len());
    for host in &hosts {
        let address = address(host);
        let detail = match tokio::time::timeout(share, open(database, host)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(detail)) => detail,
            Err(_) => format!("no answer within {share:?}"),
        };
        details.push(if hosts.len() == 1 { detail } else { format!("{address}: {detail}") });
        addresses.push(address);
    }
    let mut detail = details.join("; ");
    if database.url_is_default {
        detail += DEFAULT_URL_ADVICE;
    }
    Err(RepositoryError::Connect { address: addresses.join(","), detail })
}

/// Opens a connection for long statements: they may run for `statement_timeout` and use more memory to sort and hash, and
/// the server cancels them when this process is gone.
pub async fn connect_for_long_statements(
    database: &Database,
    role: &str,
    statement_timeout: Duration,
) -> Result<Connection, RepositoryError> {
    let mut database = database.clone();
    database.statement_timeout = statement_timeout;
    let mut connection = connect(&database, role).await?;
    // One text, for the reason that `session` gives. One day may have a million rows and the next one ten: no plan fits
    // both.
    let settings = "SET client_connection_check_interval = '1s'; SET work_mem = '64MB'; SET jit = off;
                    SET plan_cache_mode = force_custom_plan";
    connection.batch_execute(settings).await?;
    Ok(connection)
}

/// Returns the hosts, ports and name of the database for a log line, without user and password.
pub fn database_address(database: &Database) -> Result<String, RepositoryError> {
    let options = options(database, "")?;
    let hosts: Vec<String> = one_for_each_host(&options).iter().map(address).collect();
    Ok(format!("{}/{}", hosts.join(","), options.get_dbname().unwrap_or_default()))
}

/// Sets up a connection for statements that read and write rows by their keys. Plans are made once and never fall back
/// to a scan, whatever the statistics say about a table that was empty a moment ago.
pub async fn prepare_writer(connection: &mut Connection) -> Result<(), RepositoryError> {
    let settings = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
                    SET plan_cache_mode = force_generic_plan; SET jit = off; SET lock_timeout = '5s'";
    Ok(connection.batch_execute(settings).await?)
}

async fn open(database: &Database, options: &tokio_postgres::Config) -> Result<Connection, String> {
    let mut connection = open_stream(database, options).await?;
    session::prepare(&mut connection, database).await.map_err(|error| error.to_string())?;
    Ok(connection)
}

async fn open_stream(database: &Database, options: &tokio_postgres::Config) -> Result<Connection, String> {
    if options.get_ssl_mode() != SslMode::Disable {
        let tls = MakeRustlsConnect::new(tls::client_config(database)?);
        return open_tcp(options, Encrypted(tls)).await;
    }
    #[cfg(unix)]
    if let Some(Host::Unix(directory)) = options.get_hosts().first() {
        return open_unix(options, directory).await;
    }
    let mut options = options.clone();
    // See `PlainText`. The driver asks for a host name before it calls a connector.
    options.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    if options.get_hosts().is_empty() {
        let names: Vec<String> = options.get_hostaddrs().iter().map(ToString::to_string).collect();
        for name in names {
            options.host(name);
        }
    }
    open_tcp(&options, PlainText).await
}

async fn open_tcp<Connector>(
    options: &tokio_postgres::Config,
    connector: Connector,
) -> Result<Connection, String>
where
    Connector: MakeTlsConnect<Socket>,
    Connector::Stream: Send + 'static,
{
    let (client, connection) = options.connect(connector).await.map_err(|error| describe(&error))?;
    AsyncPgConnection::try_from_client_and_connection(client, connection).await.map_err(setup_failure)
}

/// Returns the text of an error of the driver's first statements.
fn setup_failure(error: ConnectionError) -> String {
    match error {
        ConnectionError::CouldntSetupConfiguration(error) => {
            RepositoryError::from(error).at_session_start().to_string()
        }
        other => other.to_string(),
    }
}

/// Connects to a Unix socket. The driver calls no connector for one, so its stream is made here.
#[cfg(unix)]
async fn open_unix(options: &tokio_postgres::Config, directory: &Path) -> Result<Connection, String> {
    let port = options.get_ports().first().copied().unwrap_or(PORT_DEFAULT);
    let socket = UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await;
    let stream = Stream::plain(socket.map_err(|error| describe(&error))?);
    let (client, connection) = options.connect_raw(stream, NoTls).await.map_err(|error| describe(&error))?;
    tokio::spawn(connection);
    let mut connection = AsyncPgConnection::try_from(client).await.map_err(setup_failure)?;
    match takes_writes(&mut connection).await {
        Ok(true) => Ok(connection),
        Ok(false) => Err("the database does not allow writes".to_owned()),
        Err(error) => Err(error.at_session_start().to_string()),
    }
}

/// Returns the message of an error with those of its sources, because the driver's own messages say little. Where the
/// operating system refused the connection, its message says all.
fn describe(error: &dyn std::error::Error) -> String {
    let mut source = error.source();
    let refusal = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    if let Some(refusal) = refusal.filter(|refusal| refusal.raw_os_error().is_some()) {
        return refusal.to_string();
    }
    let mut text = error.to_string();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// Returns the options of the URL, and those that every connection has.
pub(super) fn options(database: &Database, role: &str) -> Result<tokio_postgres::Config, RepositoryError> {
    let url = database.url_now().map_err(|error| RepositoryError::NotConnected(describe(&error)))?;
    let url = url.expose_secret();
    let invalid = |problem: String| {
        RepositoryError::NotConnected(format!(
            "database.url from {} is refused: {problem}",
            database.url_origin()
        ))
    };
    let mut options =
        tokio_postgres::Config::from_str(&tls::driver_url(url)).map_err(|error| invalid(describe(&error)))?;
    if !database.user.is_empty() {
        options.user(&database.user);
    }
    let password =
        database.password_now().map_err(|error| RepositoryError::NotConnected(describe(&error)))?;
    if !password.expose_secret().is_empty() {
        options.password(password.expose_secret());
    }
    options.ssl_mode(tls::mode(url, database.tls_ca_file.is_some(), &options).map_err(invalid)?);
    options
        .application_name(format!("ledger {role}"))
        .connect_timeout(database.connect_timeout)
        .keepalives_idle(KEEPALIVE_IDLE)
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
    Ok(options)
}

/// Returns separate options for each host. The driver can try several hosts by itself, but a host that accepts the
/// connection and then does not answer would use up all the time.
fn one_for_each_host(all: &tokio_postgres::Config) -> Vec<tokio_postgres::Config> {
    if all.get_hosts().len() < 2 || !all.get_hostaddrs().is_empty() {
        return vec![all.clone()];
    }
    let ports = all.get_ports();
    let with_host = |(position, host): (usize, &Host)| {
        let mut one = all_but_hosts(all);
        match host {
            Host::Tcp(name) => one.host(name),
            #[cfg(unix)]
            Host::Unix(path) => one.host_path(path),
        };
        one.port(ports.get(position).or(ports.first()).copied().unwrap_or(PORT_DEFAULT));
        one
    };
    all.get_hosts().iter().enumerate().map(with_host).collect()
}

fn all_but_hosts(all: &tokio_postgres::Config) -> tokio_postgres::Config {
    let mut one = tokio_postgres::Config::new();
    all.get_user().map(|user| one.user(user));
    all.get_password().map(|password| one.password(password));
    all.get_dbname().map(|name| one.dbname(name));
    all.get_options().map(|options| one.options(options));
    all.get_application_name().map(|name| one.application_name(name));
    all.get_connect_timeout().map(|timeout| one.connect_timeout(*timeout));
    all.get_tcp_user_timeout().map(|timeout| one.tcp_user_timeout(*timeout));
    all.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
    all.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
    one.keepalives(all.get_keepalives())
        .keepalives_idle(all.get_keepalives_idle())
        .ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .channel_binding(all.get_channel_binding())
        .target_session_attrs(all.get_target_session_attrs());
    one
}

fn address(options: &tokio_postgres::Config) -> String {
    let host = match options.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".into(),
    };
    let port = options.get_ports().first().copied().unwrap_or(PORT_DEFAULT);
    format!("{host}:{port}")
}
