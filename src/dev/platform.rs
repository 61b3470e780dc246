//! The whole platform in one process: a private PostgreSQL, and on it every role as a task of its own.
//!
//! The roles are the same code as on their own; only the admin listener is shared. If one fails, the others stop.
//! Everything stops in order: the roles first, so that they release what they hold, then the database.

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
    config::{BrokerKind, Config},
    consume_risk, relay,
    repository::{self, databases, migrations},
    runtime::{AdminListener, Context, Health, start_admin},
    serve,
};

const DATABASE: &str = "ledger";
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);
/// With the database's own bound, all is over within 5 s.
const ROLES_STOP_TIMEOUT: Duration = Duration::from_millis(2000);
/// In whole seconds, as actix counts them.
const SERVE_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections of all roles together, with room for a person's own.
pub(super) const CONNECTIONS_MAX: u32 = 100;

type Role = BoxFuture<'static, anyhow::Result<()>>;

/// A running platform.
pub(super) struct Platform {
    /// What the roles run with: the private database, a stop of their own, no admin listener.
    pub(super) context: Context,
    /// Base URL of the API.
    pub(super) api_url: String,
    /// Base URL of the admin listener, if it is on.
    pub(super) admin_url: Option<String>,
    /// With user and password.
    pub(super) database_url: String,
    cluster: Cluster,
    roles: JoinSet<(&'static str, anyhow::Result<()>)>,
    admin: AdminListener,
}

impl Platform {
    /// Starts all of it. `aggregate_every` leaves the role out where it is None.
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

    /// Returns when a part of it ends that nobody asked to, with the reason.
    pub(super) async fn broken(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.cluster.ended() => error,
            ended = self.roles.join_next() => match ended {
                Some(Ok((role, Err(error)))) => error.context(format!("{role} failed")),
                // The stop came while this was being polled; whoever waits for it is about to see it.
                Some(Ok((_, Ok(())))) if self.context.stop.is_requested() => std::future::pending().await,
                Some(Ok((role, Ok(())))) => anyhow::anyhow!("{role} ended by itself"),
                Some(Err(panic)) => anyhow::anyhow!("a role broke: {panic}"),
                None => anyhow::anyhow!("no role is running"),
            },
        }
    }

    /// Stops the roles, then the database; tells the first trouble on the way, after all of it.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.context.stop.request();
        let roles = timeout(ROLES_STOP_TIMEOUT, async {
            let mut outcome = Ok(());
            while let Some(ended) = self.roles.join_next().await {
                let ended = ended.context("a role broke").and_then(|(role, ended)| ended.context(role));
                outcome = outcome.and(ended);
            }
            outcome
        });
        let roles = roles.await.unwrap_or_else(|_| {
            tracing::warn!(
                "not every role stopped within {ROLES_STOP_TIMEOUT:?}; what was in flight is rolled back"
            );
            Ok(())
        });
        self.roles.abort_all();
        self.admin.stop().await;
        let cluster = self.cluster.stop().await;
        roles.and(cluster)
    }
}

fn private_config(config: &Config, cluster: &Cluster) -> Config {
    let mut config = config.clone();
    config.database.url = cluster.url(DATABASE);
    config.database.url_file = None;
    config.database.tls_ca_file = None;
    config.broker.kind = BrokerKind::Postgres;
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
    // Before the roles: a port that is taken is told at once.
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
    tokio::spawn(combine(outer.health.clone(), healths, inner.clone()));
    Ok((format!("http://{port}"), roles, admin))
}

type Start = Box<dyn FnOnce(Context) -> Role + Send>;

/// Every role but `serve`, which is started first because its address is wanted.
fn background_roles(aggregate_every: Option<Duration>) -> Vec<(&'static str, Start)> {
    let mut roles: Vec<(&'static str, Start)> = vec![
        ("relay", Box::new(|context| Box::pin(relay::run(context)))),
        ("consume-risk", Box::new(|context| Box::pin(consume_risk::run(context)))),
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
    let connection = repository::connect(&inner.config.database, "migrate").await?;
    migrations::migrate(connection).await?;
    Ok(())
}

/// Waits until every role can do its work, or one fails.
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
        Some(ended) = roles.join_next() => match ended.context("a role broke")? {
            (role, Ok(())) if inner.stop.is_requested() => { tracing::debug!(role, "stopped"); Ok(()) }
            (role, Ok(())) => bail!("{role} ended by itself"),
            (role, Err(error)) => Err(error.context(format!("{role} failed"))),
        },
    }
}

/// The process is ready while all of its roles are.
async fn combine(all: Health, each: Vec<Health>, context: Context) {
    while !context.stop.is_requested() {
        all.set_ready(each.iter().all(Health::is_ready));
        tokio::select! {
            () = sleep(HEALTH_INTERVAL) => {}
            () = context.stop.requested() => {}
        }
    }
    all.set_ready(false);
}
