//! Connections to PostgreSQL: one at a time for writers, pooled for readers. TLS by rustls where the URL asks for
//! it; TLS that is asked for never falls back to plain text, and there is no TLS without verification.

use std::{str::FromStr, sync::Arc, time::Duration};

use diesel::result::ConnectionError;
use diesel_async::{
    AsyncPgConnection, RunQueryDsl,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, PoolError, RecyclingMethod, deadpool},
};
use futures::FutureExt;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::ExposeSecret;
use tokio_postgres::{
    NoTls,
    config::{Host, SslMode, TargetSessionAttrs},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::RepositoryError;
use crate::config::Database;

/// A connection.
pub type Connection = AsyncPgConnection;
/// A pool of connections.
pub type Pool = deadpool::Pool<AsyncPgConnection>;
/// A connection out of a [`Pool`]; goes back when dropped.
pub type PooledConnection = deadpool::Object<AsyncPgConnection>;

const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Opens one connection. `role` becomes the `application_name`.
pub async fn connect(database: &Database, role: &str) -> Result<Connection, RepositoryError> {
    let options = options(database, role)?;
    let address = address(&options);
    let failed = |detail: String| RepositoryError::Connect { address: address.clone(), detail };
    let opened = tokio::time::timeout(database.connect_timeout, open(database, &options));
    match opened.await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(detail)) => Err(failed(detail)),
        Err(_) => Err(failed(format!("no answer within {:?}", database.connect_timeout))),
    }
}

/// Opens a connection for work that takes long: its statements may run for `statement_timeout`, sort and hash in more
/// memory than those of a request, and the server ends them by itself when this process is gone.
pub async fn connect_for_long_statements(
    database: &Database,
    role: &str,
    statement_timeout: Duration,
) -> Result<Connection, RepositoryError> {
    let mut database = database.clone();
    database.statement_timeout = statement_timeout;
    let mut connection = connect(&database, role).await?;
    let settings = [
        "SET client_connection_check_interval = '1s'",
        "SET work_mem = '64MB'",
        "SET jit = off",
        // One day is a million rows and the next is ten: no plan suits both.
        "SET plan_cache_mode = force_custom_plan",
    ];
    for setting in settings {
        diesel::sql_query(setting).execute(&mut connection).await?;
    }
    Ok(connection)
}

async fn open(database: &Database, options: &tokio_postgres::Config) -> Result<Connection, String> {
    if options.get_ssl_mode() == SslMode::Disable {
        let (client, connection) = options.connect(NoTls).await.map_err(|error| describe(&error))?;
        AsyncPgConnection::try_from_client_and_connection(client, connection)
            .await
            .map_err(|error| error.to_string())
    } else {
        let tls = MakeRustlsConnect::new(tls_config(database)?);
        let (client, connection) = options.connect(tls).await.map_err(|error| describe(&error))?;
        AsyncPgConnection::try_from_client_and_connection(client, connection)
            .await
            .map_err(|error| error.to_string())
    }
}

/// The driver's errors say little by themselves; their sources tell the rest.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

fn options(database: &Database, role: &str) -> Result<tokio_postgres::Config, RepositoryError> {
    let url = database.url.expose_secret();
    let invalid = |detail: String| RepositoryError::Connect { address: "database.url".into(), detail };
    // tokio-postgres knows disable, prefer and require; the two verifying modes are what `require` does here.
    let url =
        url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
    if url.contains("sslmode=prefer") || url.contains("sslmode=allow") {
        return Err(invalid("sslmode=prefer may fall back to plain text; say disable or verify-full".into()));
    }
    let mut options = tokio_postgres::Config::from_str(&url).map_err(|error| invalid(describe(&error)))?;
    if !url.contains("sslmode=") {
        options.ssl_mode(SslMode::Disable);
    }
    let server_options = format!(
        "-c statement_timeout={} -c idle_in_transaction_session_timeout={}",
        database.statement_timeout.as_millis(),
        database.idle_in_transaction_timeout.as_millis()
    );
    let given = options.get_options().unwrap_or_default();
    let server_options = format!("{server_options} {given}");
    options
        .application_name(format!("ledger {role}"))
        .connect_timeout(database.connect_timeout)
        .keepalives_idle(KEEPALIVE_IDLE)
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .options(server_options.trim());
    Ok(options)
}

fn address(options: &tokio_postgres::Config) -> String {
    let host = match options.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".into(),
    };
    let port = options.get_ports().first().copied().unwrap_or(5432);
    format!("{host}:{port}")
}

fn tls_config(database: &Database) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &database.tls_ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let unreadable = |error: &dyn std::fmt::Display| {
                format!("cannot read database.tls_ca_file {}: {error}", path.display())
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
            }
        }
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Makes a pool. No connection is opened before the first is asked for.
pub fn pool(database: &Database, role: &'static str) -> Result<Pool, RepositoryError> {
    options(database, role)?;
    let settings = Arc::new(database.clone());
    let mut manager_config = ManagerConfig::default();
    manager_config.custom_setup = Box::new(move |_| {
        let settings = Arc::clone(&settings);
        async move {
            connect(&settings, role).await.map_err(|error| ConnectionError::BadConnection(error.to_string()))
        }
        .boxed()
    });
    // Not `SELECT 1`, which a demoted primary passes: a connection must still be able to write.
    manager_config.recycling_method = RecyclingMethod::Fast;
    let manager = AsyncDieselConnectionManager::new_with_config("", manager_config);
    deadpool::Pool::builder(manager)
        .max_size(database.pool_size_max)
        .wait_timeout(Some(database.pool_wait_timeout))
        .create_timeout(Some(database.connect_timeout))
        .recycle_timeout(Some(database.connect_timeout))
        .runtime(::deadpool::Runtime::Tokio1)
        .build()
        .map_err(|error| RepositoryError::Connect { address: "database".into(), detail: error.to_string() })
}

/// Takes a connection out of the pool, waiting at most `database.pool_wait_timeout`.
pub async fn pooled(pool: &Pool) -> Result<PooledConnection, RepositoryError> {
    use ::deadpool::managed::{PoolError as Deadpool, TimeoutType};
    pool.get().await.map_err(|error| match error {
        Deadpool::Timeout(TimeoutType::Wait) => {
            RepositoryError::PoolExhausted(pool.timeouts().wait.unwrap_or_default())
        }
        Deadpool::Backend(PoolError::ConnectionError(ConnectionError::BadConnection(detail))) => {
            // `connect` has put the address into the text already.
            let detail =
                detail.strip_prefix("cannot connect to PostgreSQL at ").unwrap_or(&detail).to_owned();
            match detail.split_once(": ") {
                Some((address, detail)) => {
                    RepositoryError::Connect { address: address.into(), detail: detail.into() }
                }
                None => RepositoryError::Connect { address: "database".into(), detail },
            }
        }
        other => RepositoryError::Connect { address: "database".into(), detail: other.to_string() },
    })
}
