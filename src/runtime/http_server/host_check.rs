//! The check of `Host` on a loopback listener.
//!
//! A web page of another site can let its own name resolve to 127.0.0.1 after it was loaded (DNS rebinding). For the
//! browser of a developer or an operator, a listener on that address then belongs to the page, which may read and write
//! everything. The request still names the page's host. So a loopback listener answers only to `localhost`, to IP
//! addresses, and to the names that the configuration allows. Other listeners answer to every name: their clients use
//! names, and their access control cannot be their address.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{HOST, HeaderMap};

/// The names that a listener answers to.
#[derive(Debug, Clone)]
pub struct HostCheck {
    is_loopback: bool,
    key: &'static str,
    allowed: Vec<String>,
}

impl HostCheck {
    /// Creates the check of a listener. `key` is the configuration key of the allowed names.
    pub fn new(listen: SocketAddr, key: &'static str, allowed: &[String]) -> Self {
        Self { is_loopback: listen.ip().to_canonical().is_loopback(), key, allowed: allowed.to_vec() }
    }

    /// Returns why a request is refused, or None. A request without `Host` passes, because browsers always send it.
    pub fn refusal(&self, headers: &HeaderMap) -> Option<String> {
        if !self.is_loopback {
            return None;
        }
        let is_allowed = |host: &str| {
            let name = without_port(host);
            name.eq_ignore_ascii_case("localhost")
                || name.parse::<IpAddr>().is_ok()
                || self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
        };
        let host = headers.get_all(HOST).find(|host| !host.to_str().is_ok_and(is_allowed))?;
        let host = String::from_utf8_lossy(host.as_bytes());
        let host: String = host.chars().take(HOST_LENGTH_SHOWN).collect();
        Some(format!(
            "the host {host:?} is not allowed on a loopback address; use an IP address or localhost, or add the name to {}",
            self.key
        ))
    }
}

/// The longest part of a refused host that the answer repeats.
const HOST_LENGTH_SHOWN: usize = 128;

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn refuses(listen: &str, hosts: &[&str]) -> bool {
        let allowed = ["ledger.example.org".to_owned()];
        let check = HostCheck::new(listen.parse().expect("an address"), "serve.allowed_hosts", &allowed);
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).expect("a value"));
        }
        check.refusal(&headers).is_some()
    }

    #[test]
    fn a_loopback_listener_answers_to_addresses_localhost_and_allowed_names_only() {
        for listen in ["127.0.0.1:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            for host in [
                "127.0.0.1:8080",
                "localhost",
                "LOCALHOST:1",
                "[::1]:8080",
                "10.0.0.1",
                "Ledger.example.org:80",
            ] {
                assert!(!refuses(listen, &[host]), "{host}");
            }
            for host in
                ["evil.example", "localhost.evil.example:8080", "ledger.example.org.evil", "", "[evil]"]
            {
                assert!(refuses(listen, &[host]), "{host}");
            }
            assert!(refuses(listen, &["localhost", "evil.example"]), "each header counts");
            assert!(!refuses(listen, &[]), "no browser");
        }
        assert!(!refuses("0.0.0.0:8080", &["evil.example"]) && !refuses("10.0.0.1:8080", &["evil.example"]));
    }
}
