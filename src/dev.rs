//! `ledger dev`: the whole platform in one process, for trials, development and tests. It has a private PostgreSQL, runs
//! all roles, and needs no Kafka. Its data is kept between starts. Nothing in this folder is needed in production.

pub mod cluster;
pub mod demo;
pub mod simulate;

mod binaries;
mod os_user;
mod platform;
mod watchdog;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;

use self::{
    cluster::ClusterOptions,
    platform::{CONNECTIONS_MAX, Platform},
};
use crate::{
    config::{Listen, Overrides},
    runtime::{Context, print_text},
};

const AGGREGATE_INTERVAL: Duration = Duration::from_secs(60);

/// Flags of `ledger dev`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Directory of the database; kept between starts
    ///
    /// The default is ledger/dev below $XDG_DATA_HOME or ~/.local/share, and for root /var/lib/ledger/dev.
    #[arg(long, env = "LEDGER_DEV_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the API
    #[arg(long, env = "LEDGER_DEV_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Address of /livez, /readyz and /metrics, or `off`
    #[arg(long, env = "LEDGER_DEV_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub admin_listen: Option<Listen>,
    /// Directory of PostgreSQL's programs; by default installed programs, or portable ones downloaded once
    #[arg(long, env = "LEDGER_DEV_POSTGRES_BIN", value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,
}

impl Args {
    /// Returns the configuration values that the flags set. A configured database and a configured broker are not used.
    pub fn overrides(&self) -> Overrides {
        let mut overrides = private_overrides();
        if let Some(address) = self.listen {
            overrides.push(("serve.listen".into(), address.to_string()));
        }
        if let Some(address) = self.admin_listen {
            overrides.push(("admin.listen".into(), address.to_string()));
        }
        overrides
    }
}

/// Unsets a configured database and broker, so that their files are not read and their secrets not checked.
fn private_overrides() -> Overrides {
    let unset = [
        "database.url",
        "database.url_file",
        "database.user",
        "database.password",
        "database.password_file",
        "database.tls_ca_file",
        "broker.kafka.sasl_password",
        "broker.kafka.sasl_password_file",
    ]
    .map(|key| (key, ""));
    let private = unset.into_iter().chain([("broker.kind", "postgres")]);
    private.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Runs the platform until a stop is requested or a part of it fails.
pub async fn run(context: Context, args: Args) -> anyhow::Result<ExitCode> {
    let directory = match args.data_dir {
        Some(directory) => directory,
        None => default_data_directory()?,
    };
    let options = ClusterOptions {
        directory: directory.clone(),
        ephemeral: false,
        binaries: args.postgres_bin,
        connections_max: CONNECTIONS_MAX,
        durable: true,
    };
    print_text(format_args!("Starting a private PostgreSQL in {} and all roles …\n", directory.display()))?;
    let mut platform = tokio::select! {
        started = Platform::start(&context, &options, Some(AGGREGATE_INTERVAL)) => started?,
        // The watchdog stops a server that has been started by then.
        () = context.stop.requested() => return Ok(ExitCode::SUCCESS),
    };
    let outcome = match print_text(welcome(&platform, &directory.display().to_string())) {
        Err(error) => Err(error.into()),
        Ok(()) => tokio::select! {
            biased;
            () = context.stop.requested() => Ok(()),
            error = platform.failed() => Err(error),
        },
    };
    let stopped = platform.stop().await;
    outcome.and(stopped).map(|()| ExitCode::SUCCESS)
}

fn welcome(platform: &Platform, data: &str) -> String {
    let Platform { api_url, database_url, .. } = platform;
    let admin =
        platform.admin_url.as_deref().map_or_else(String::new, |url| format!("  metrics   {url}/metrics\n"));
    format!(
        r#"ledger is running. Its data is in {data}. Ctrl-C stops it.

  API       {api_url}
  try it    {api_url}/docs
{admin}  database  {database_url}

Post a transaction. The same request again gets the first answer, byte for byte:

  curl -i {api_url}/transactions -H 'Content-Type: application/json' -H 'Idempotency-Key: order-77' -d '{{"account_id": "acct-42", "direction": "debit", "amount": "125.50", "currency": "EUR", "counterparty": "shop-9"}}'

Post many transactions and check every answer:

  ledger simulate --url {api_url}
"#
    )
}

fn default_data_directory() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(data) = set("XDG_DATA_HOME") {
        return Ok(data.join("ledger/dev"));
    }
    // For root, an unprivileged user runs PostgreSQL, and that user cannot enter root's home directory.
    if nix::unistd::Uid::effective().is_root() {
        return Ok("/var/lib/ledger/dev".into());
    }
    match set("HOME") {
        Some(home) => Ok(home.join(".local/share/ledger/dev")),
        None => bail!("neither XDG_DATA_HOME nor HOME is set; use --data-dir"),
    }
}
