//! `ledger health`: asks the admin listener of a role on this machine, for health checks of containers whose image has no
//! other program.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;

use crate::{
    config::Listen,
    runtime::{Context, print_text},
};

/// The part of an answer that is read. A role answers with a few lines.
const ANSWER_SIZE_MAX: usize = 4096;

/// Flags of `ledger health`.
#[derive(Debug, Clone, Copy, Args)]
pub struct HealthArgs {
    /// Ask only whether the process answers, not whether the role can do its work
    #[arg(long, env = "LEDGER_HEALTH_LIVE")]
    live: bool,
    /// How long to wait for the answer
    #[arg(long, env = "LEDGER_HEALTH_TIMEOUT", value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Runs the command. It fails unless the role answers 200.
pub async fn run(context: &Context, args: HealthArgs) -> anyhow::Result<ExitCode> {
    let url = format!(
        "http://{}/{}",
        address(context.config.admin.listen)?,
        if args.live { "livez" } else { "readyz" }
    );
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(args.timeout)
        .build()
        .context("HTTP client")?;
    let answer = async {
        let mut answer = client.get(&url).send().await?;
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await?
            && text.len() < ANSWER_SIZE_MAX
        {
            text.extend_from_slice(&chunk);
        }
        text.truncate(ANSWER_SIZE_MAX);
        Ok::<_, reqwest::Error>((answer.status(), String::from_utf8_lossy(&text).into_owned()))
    };
    let (status, text) =
        answer.await.with_context(|| format!("{url} does not answer; is the role running?"))?;
    anyhow::ensure!(status == reqwest::StatusCode::OK, "{url} answers {status}: {}", text.trim_end());
    print_text(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the address at which this machine reaches the listener. A listener on all addresses is asked on loopback.
fn address(listen: Listen) -> anyhow::Result<SocketAddr> {
    let Listen::On(mut address) = listen else {
        anyhow::bail!("admin.listen is off, so the role has no listener to ask");
    };
    anyhow::ensure!(
        address.port() != 0,
        "admin.listen has port 0, so the port of the role is not known; set a port"
    );
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        let asked = |listen: &str| address(listen.parse().expect("valid")).map(|address| address.to_string());
        assert_eq!(asked("0.0.0.0:9090").expect("known"), "127.0.0.1:9090");
        assert_eq!(asked("[::]:9090").expect("known"), "[::1]:9090");
        assert_eq!(asked("10.0.0.7:9090").expect("known"), "10.0.0.7:9090");
        assert!(asked("off").is_err() && asked("127.0.0.1:0").is_err());
    }
}
