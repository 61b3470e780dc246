//! Opens connections to the cluster: TCP, then TLS, then SASL.
//!
//! Guarantees: nothing is sent in plain text when TLS is configured; an attempt ends within
//! `broker.kafka.connect_timeout`; all connections lead to one cluster. Every failure names the setting to check.

mod sasl;
mod tls;

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use kafka_protocol::messages::MetadataRequest;
use rustls::ClientConfig;
use tokio::{net::TcpStream, time::timeout};

use self::sasl::Credentials;
use super::connection::{Connection, Stream};
use crate::{
    broker::BrokerError,
    config::{Kafka, SaslMechanism},
};

/// Opens connections with the configured security.
pub(super) struct Connector {
    bootstrap_servers: Vec<String>,
    client_id: String,
    connect_timeout: Duration,
    tls: Option<Arc<ClientConfig>>,
    credentials: Option<Credentials>,
    last_responsive: Mutex<Option<String>>,
    /// The id of the cluster, from the first connection.
    cluster_id: OnceLock<String>,
}

impl Connector {
    /// Creates a connector, and reads the files that the configuration names.
    pub(super) fn new(settings: &Kafka) -> Result<Self, BrokerError> {
        let tls = settings.tls.then(|| tls::client_config(settings)).transpose()?;
        if tls.is_none() && settings.sasl_mechanism == Some(SaslMechanism::Plain) {
            tracing::warn!(
                "broker.kafka.sasl_mechanism = \"plain\" without broker.kafka.tls sends the password unencrypted"
            );
        }
        let servers = settings.bootstrap_servers.split(',');
        Ok(Self {
            bootstrap_servers: servers.map(|server| server.trim().to_owned()).collect(),
            client_id: settings.client_id.clone(),
            connect_timeout: settings.connect_timeout,
            tls,
            credentials: Credentials::from_config(settings),
            last_responsive: Mutex::default(),
            cluster_id: OnceLock::new(),
        })
    }

    /// Returns the id of the cluster; empty before the first connection, and for a server that reports none.
    pub(super) fn cluster_id(&self) -> String {
        self.cluster_id.get().cloned().unwrap_or_default()
    }

    /// Connects to any bootstrap server. Starts with the server that answered last time, so that a silent server in the
    /// list costs its time limit only once.
    pub(super) async fn connect_to_any(&self) -> Result<Connection, BrokerError> {
        let last = self.last_responsive.lock().unwrap_or_else(PoisonError::into_inner).take();
        let others = self.bootstrap_servers.iter().filter(|server| Some(*server) != last.as_ref()).cloned();
        let servers: Vec<String> = last.iter().cloned().chain(others).collect();
        let connection = self.connect_to_first(&servers).await?;
        let responsive = connection.address().to_owned();
        *self.last_responsive.lock().unwrap_or_else(PoisonError::into_inner) = Some(responsive);
        Ok(connection)
    }

    /// Connects to the broker at `host:port`.
    pub(super) async fn connect_to(&self, address: String) -> Result<Connection, BrokerError> {
        self.connect_to_first(&[address]).await
    }

    /// Connects to the first address that answers and accepts the credentials. Each address gets an equal share of the
    /// time limit. If all fail, prefers the error of an address that refused to the error of an address that did not
    /// answer.
    async fn connect_to_first(&self, addresses: &[String]) -> Result<Connection, BrokerError> {
        let share = self.connect_timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut failure = BrokerError::Unavailable { detail: "no broker address".into() };
        for address in addresses {
            let opened = timeout(share, self.open(address)).await;
            let silent =
                || BrokerError::Unavailable { detail: format!("{address}: no answer within {share:?}") };
            match opened.unwrap_or_else(|_| Err(silent())) {
                Ok(connection) => return Ok(connection),
                Err(error) if failure.is_transient() => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    async fn open(&self, address: &str) -> Result<Connection, BrokerError> {
        let unavailable =
            |error: std::io::Error| BrokerError::Unavailable { detail: format!("{address}: {error}") };
        let tcp = TcpStream::connect(address).await.map_err(unavailable)?;
        tcp.set_nodelay(true).map_err(unavailable)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(config) => tls::encrypt(address, tcp, Arc::clone(config)).await?,
        };
        let mut connection = Connection::new(stream, address, &self.client_id);
        if let Some(credentials) = &self.credentials {
            credentials.authenticate(&mut connection).await?;
        }
        // A request for no topics shows whether the broker accepts this client. A port that expects TLS or
        // authentication may stay silent until the first request.
        let answer = connection.call(&MetadataRequest::default().with_topics(Some(Vec::new()))).await?;
        self.check_cluster(address, &answer.cluster_id.map(|id| id.to_string()).unwrap_or_default())?;
        connection.learn_versions().await?;
        Ok(connection)
    }

    /// Refuses a broker of another cluster than that of the first connection. Names and addresses may come to lead to
    /// another cluster while the process runs, and its topics would get the next records.
    fn check_cluster(&self, address: &str, found: &str) -> Result<(), BrokerError> {
        let first = self.cluster_id.get_or_init(|| found.to_owned());
        if first == found {
            return Ok(());
        }
        let detail = format!(
            "{address} belongs to the kafka cluster {found}, but this process began with the cluster {first}; \
             check broker.kafka.bootstrap_servers"
        );
        Err(BrokerError::Refused { detail })
    }
}

/// Formats the host and port of a broker from the metadata as an address to connect to.
pub(super) fn host_and_port(host: &str, port: i32) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_host_is_put_in_brackets() {
        assert_eq!(host_and_port("kafka-1.example", 9092), "kafka-1.example:9092");
        assert_eq!(host_and_port("::1", 9092), "[::1]:9092");
    }
}
