//! A rate limit for each client, off unless `serve.rate_limit` is set. The crate governor implements it with the generic
//! cell rate algorithm (ITU-T I.371).
//!
//! - A client is identified by its IP address, an IPv6 client by its /64 network, because one host owns a whole network.
//! - Behind proxies, the outermost trusted proxy saw the client's address: the `trusted_proxies`-th from the right of
//!   `X-Forwarded-For`. The addresses further left come from the client and are ignored.
//! - At most `CLIENTS_MAX` clients are tracked. Further clients share one limit.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use actix_web::{
    Error,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::HeaderMap,
    middleware::Next,
    web,
};
use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};

use super::problem::Problem;
use crate::{config::Serve, runtime::http_server::peer_network};

const CLIENTS_MAX: usize = 100_000;
const CLEAR_INTERVAL_MS: u64 = 1000;
/// The address under which all clients beyond `CLIENTS_MAX` are counted.
const UNTRACKED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The rate limit, or None if there is none. All HTTP workers share it.
pub type Limiter = Option<Arc<RateLimit>>;

/// The rate limit and the clients that it counts.
pub struct RateLimit {
    clients: DefaultKeyedRateLimiter<IpAddr>,
    trusted_proxies: usize,
    started: Instant,
    /// Milliseconds after `started`.
    cleared_at_ms: AtomicU64,
}

impl RateLimit {
    /// Creates the configured limit, or None.
    pub fn new(config: &Serve) -> Limiter {
        let rate = NonZeroU32::new(config.rate_limit)?;
        let burst = NonZeroU32::new(config.rate_limit_burst).unwrap_or(rate);
        let clients = DefaultKeyedRateLimiter::keyed(Quota::per_second(rate).allow_burst(burst));
        let trusted_proxies = config.trusted_proxies;
        Some(Arc::new(Self {
            clients,
            trusted_proxies,
            started: Instant::now(),
            cleared_at_ms: AtomicU64::default(),
        }))
    }

    /// Counts a request. Returns the seconds to wait if the client exceeds its limit.
    fn seconds_to_wait(&self, client: IpAddr) -> Option<u64> {
        let client = self.counted_address(client);
        let not_until = self.clients.check_key(&client).err()?;
        Some(not_until.wait_time_from(DefaultClock::default().now()).as_secs() + 1)
    }

    /// Returns the address that a client is counted under.
    fn counted_address(&self, client: IpAddr) -> IpAddr {
        if self.clients.len() < CLIENTS_MAX {
            return client;
        }
        // Removing idle clients from a full table takes milliseconds, so it is done at most once per interval.
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let cleared_at_ms = self.cleared_at_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(cleared_at_ms) < CLEAR_INTERVAL_MS {
            return UNTRACKED;
        }
        self.cleared_at_ms.store(now_ms, Ordering::Relaxed);
        self.clients.retain_recent();
        if self.clients.len() < CLIENTS_MAX { client } else { UNTRACKED }
    }
}

/// Passes a request on, or answers 429 with `Retry-After`.
pub async fn limit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody, BoxBody>>, Error> {
    let limiter = request.app_data::<web::Data<Limiter>>().and_then(|limiter| limiter.as_ref().as_ref());
    if let Some(limiter) = limiter {
        let peer = request.peer_addr().map_or(UNTRACKED, |peer| peer.ip());
        let client = client_address(peer, request.headers(), limiter.trusted_proxies);
        if let Some(seconds) = limiter.seconds_to_wait(client) {
            let answer = Problem::too_many_requests(seconds).respond(request.path());
            return Ok(request.into_response(answer).map_into_right_body());
        }
    }
    Ok(next.call(request).await?.map_into_left_body())
}

/// Returns the address of the client: the peer, or the address that the outermost trusted proxy saw.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted_proxies: usize) -> IpAddr {
    let Some(position) = trusted_proxies.checked_sub(1) else { return peer_network(peer) };
    let mut hops: Vec<&str> = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        hops.extend(value.to_str().unwrap_or_default().split(',').map(str::trim));
    }
    // Some proxies append the port.
    let address = |hop: &&str| hop.parse().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()));
    let seen = hops.iter().rev().nth(position).and_then(address);
    peer_network(seen.unwrap_or(peer))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn forwarded(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                HeaderName::from_static(FORWARDED_FOR),
                HeaderValue::from_str(value).expect("a value"),
            );
        }
        headers
    }

    #[test]
    fn only_addresses_from_trusted_proxies_are_used() {
        let peer = address("10.0.0.1");
        let headers = forwarded(&["6.6.6.6, 1.1.1.1", "2.2.2.2"]);
        assert_eq!(client_address(peer, &headers, 0), peer);
        assert_eq!(client_address(peer, &headers, 1), address("2.2.2.2"));
        assert_eq!(client_address(peer, &headers, 2), address("1.1.1.1"));
        assert_eq!(client_address(peer, &headers, 4), peer);
        assert_eq!(client_address(peer, &forwarded(&["nonsense"]), 1), peer);
        assert_eq!(client_address(peer, &forwarded(&["1.1.1.1:443"]), 1), address("1.1.1.1"));
        assert_eq!(client_address(peer, &forwarded(&["[2001:db8::1]:443"]), 1), address("2001:db8::"));
    }
}
