//! The whole platform in one process: a private PostgreSQL, and every role as a task.
//!
//! Each role runs the same code as in a process of its own, but all share one admin listener. If a role fails, all stop.
//! The roles stop first, so that they can release their leases, and then the database.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use futures::future::BoxFuture;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::cluster::{Cluster, ClusterOptions};
use crate::{
    aggregate,
    config::Config,
    consume_risk, relay,
    repository::{self, databases, migrations, sequences},
    runtime::{AdminListener, Boot, Context, Health, start_admin},
    serve,
};

const DATABASE: &str = "ledger";
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);
/// A stop takes at most 5 s: this limit and the limit of the database together.
const ROLES_STOP_TIMEOUT: Duration = Duration::from_millis(2000);
/// A whole number of seconds, as actix requires.
const SERVE_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Enough for the connections of all roles and some for the user.
pub(super) const CONNECTIONS_MAX: u32 = 100;

type Role = BoxFuture<'static, anyhow::Result<()>>;

/// A running platform.
pub(super) struct Platform {
    /// The context of the roles: the private database, a stop of their own, no admin listener.
    pub(super) context: Context,
    /// Base URL of the API.
    pub(super) api_url: String,
    /// Base URL of the admin listener, if it is on.
    pub(super) admin_url: Option<String>,
    /// Contains the user and the password.
    pub(super) database_url: String,
    cluster: Cluster,
    roles: JoinSet<(&'static str, anyhow::Result<()>)>,
    admin: AdminListener,
}

impl Platform {
    /// Starts the database and the roles. If `aggregate_every` is None, the role `aggregate` does not run.
    pub(super) async fn start(
        context: &Context,
        cluster: &ClusterOptions,
        aggregate_every: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let cluster = Cluster::start(cluster).await?;
        let inner = Context {
            config: Arc::new(private_config(&context.config, &cluster)),
            stop: context.stop.child(),
            ..context.clone()
        };
        match start_roles(context, &inner, &cluster, aggregate_every).await {
            Ok((api_url, roles, admin)) => {
                use secrecy::ExposeSecret;
                let admin_url = admin.address.map(|address| format!("http://{address}"));
                let database_url = cluster.url(DATABASE).expose_secret().to_owned();
                Ok(Self { context: inner, api_url, admin_url, database_url, cluster, roles, admin })
            }
            Err(error) => {
                inner.stop.request();
                cluster.stop().await?;
                Err(error)
            }
        }
    }

    /// Waits until a part of the platform ends by itself, and returns the reason.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.cluster.ended() => error,
            ended = self.roles.join_next() => match ended {
                Some(Ok((role, Err(error)))) => error.context(format!("{role} failed")),
                // The role ended because a stop was requested. The caller waits for the same request.
                Some(Ok((_, Ok(())))) if self.context.stop.is_requested() => std::future::pending().await,
                Some(Ok((role, Ok(())))) => anyhow::anyhow!("{role} ended by itself"),
                Some(Err(panic)) => anyhow::anyhow!("a role panicked: {panic}"),
                None => anyhow::anyhow!("no role is running"),
            },
        }
    }

    /// Stops the roles, then the database. Returns the first error after everything has stopped.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.context.stop.request();
        let roles = timeout(ROLES_STOP_TIMEOUT, async {
            let mut outcome = Ok(());
            while let Some(ended) = self.roles.join_next().await {
                let ended = ended.context("a role panicked").and_then(|(role, ended)| ended.context(role));
                outcome = outcome.and(ended);
            }
            outcome
        });
        let roles = roles.await.unwrap_or_else(|_| {
            tracing::warn!(
                "not every role stopped within {ROLES_STOP_TIMEOUT:?}; open database transactions are rolled back"
            );
            Ok(())
        });
        self.roles.abort_all();
        self.admin.stop().await;
        let cluster = self.cluster.stop().await;
        roles.and(cluster)
    }
}

/// Replaces the database. The overrides of the command have unset the other keys of a configured database and broker.
fn private_config(config: &Config, cluster: &Cluster) -> Config {
    let mut config = config.clone();
    config.database.url = cluster.url(DATABASE);
    config.admin.listen = crate::config::Listen::Off;
    config.serve.shutdown_timeout = config.serve.shutdown_timeout.min(SERVE_STOP_TIMEOUT);
    config
}

async fn start_roles(
    outer: &Context,
    inner: &Context,
    cluster: &Cluster,
    aggregate_every: Option<Duration>,
) -> anyhow::Result<(String, JoinSet<(&'static str, anyhow::Result<()>)>, AdminListener)> {
    migrate(inner, cluster).await?;
    // Before the roles, so that a used port is reported at once.
    let admin = start_admin(outer)?;
    let mut roles = JoinSet::new();
    let serving = with_own_health(inner);
    let api = serve::start(&serving).await?;
    let mut port = api.address();
    if port.ip().is_unspecified() {
        port.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let mut healths = vec![serving.health];
    roles.spawn(async move { ("serve", api.stopped().await) });
    for (name, start) in background_roles(aggregate_every) {
        let context = with_own_health(inner);
        healths.push(context.health.clone());
        let role = start(context);
        roles.spawn(async move { (name, role.await) });
    }
    become_ready(inner, &healths, &mut roles).await?;
    tokio::spawn(combine_health(outer.health.clone(), healths, inner.clone()));
    Ok((format!("http://{port}"), roles, admin))
}

type Start = Box<dyn FnOnce(Context) -> Role + Send>;

/// Returns every role except `serve`, which starts first because its address is needed.
fn background_roles(aggregate_every: Option<Duration>) -> Vec<(&'static str, Start)> {
    let mut roles: Vec<(&'static str, Start)> = vec![
        ("relay", Box::new(|context| Box::pin(relay::run(context)))),
        ("consume-risk", Box::new(|context| Box::pin(consume_risk::run_beside_others(context)))),
    ];
    if aggregate_every.is_some() {
        let args = aggregate::Args { every: aggregate_every, ..aggregate::Args::default() };
        roles.push((
            "aggregate",
            Box::new(|context| Box::pin(async { aggregate::run(context, args).await.map(drop) })),
        ));
    }
    roles
}

fn with_own_health(context: &Context) -> Context {
    Context { health: Health::default(), ..context.clone() }
}

async fn migrate(inner: &Context, cluster: &Cluster) -> anyhow::Result<()> {
    let mut settings = inner.config.database.clone();
    settings.url = cluster.url("postgres");
    let mut administrator = repository::connect(&settings, "dev").await?;
    databases::create_if_missing(&mut administrator, DATABASE).await?;
    let boot = Boot::new(inner, "migrate");
    migrations::migrate(boot.connect_unmigrated().await?).await?;
    sequences::advance(&mut boot.connect().await?).await?;
    Ok(())
}

/// Waits until every role is ready or one fails.
async fn become_ready(
    inner: &Context,
    healths: &[Health],
    roles: &mut JoinSet<(&'static str, anyhow::Result<()>)>,
) -> anyhow::Result<()> {
    const READY_TIMEOUT: Duration = Duration::from_secs(30);
    let ready = async {
        while !healths.iter().all(Health::is_ready) {
            sleep(HEALTH_INTERVAL / 5).await;
        }
    };
    tokio::select! {
        () = ready => Ok(()),
        () = inner.stop.requested() => Ok(()),
        () = sleep(READY_TIMEOUT) => bail!("not every role was ready within {READY_TIMEOUT:?}"),
        Some(ended) = roles.join_next() => match ended.context("a role panicked")? {
            (role, Ok(())) if inner.stop.is_requested() => { tracing::debug!(role, "stopped"); Ok(()) }
            (role, Ok(())) => bail!("{role} ended by itself"),
            (role, Err(error)) => Err(error.context(format!("{role} failed"))),
        },
    }
}

/// Keeps the process ready while all roles are ready.
async fn combine_health(all: Health, each: Vec<Health>, context: Context) {
    while !context.stop.is_requested() {
        all.set_ready(each.iter().all(Health::is_ready));
        tokio::select! {
            () = sleep(HEALTH_INTERVAL) => {}
            () = context.stop.requested() => {}
        }
    }
    all.set_ready(false);
}
