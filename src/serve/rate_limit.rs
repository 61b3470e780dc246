//! A rate limit per client, off unless `serve.rate_limit` says so: the generic cell rate algorithm (ITU-T I.371), as
//! the crate governor has it.
//!
//! A client is its address; an IPv6 client is its /64, since one host owns that many. Behind proxies the address is
//! the one that the outermost trusted proxy saw: the `trusted_proxies`-th from the right of `X-Forwarded-For`. What
//! stands further left was written by the client and is not believed. The table is bounded; clients beyond its bound
//! share one allowance.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
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
use crate::config::Serve;

const CLIENTS_MAX: usize = 100_000;
const CLEAR_INTERVAL_MS: u64 = 1000;
/// The one allowance of everybody whom the table has no room for.
const EVERYBODY_ELSE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The limiter, or None where there is no limit. Shared by all HTTP workers.
pub type Limiter = Option<Arc<RateLimit>>;

/// A limit and whom it counts.
pub struct RateLimit {
    clients: DefaultKeyedRateLimiter<IpAddr>,
    trusted_proxies: usize,
    started: Instant,
    /// Milliseconds after `started`.
    cleared_at_ms: AtomicU64,
}

impl RateLimit {
    /// As configured; None for no limit.
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

    /// Seconds to wait, or None if the request may pass.
    fn refused_for(&self, client: IpAddr) -> Option<u64> {
        let client = self.counted(client);
        let not_until = self.clients.check_key(&client).err()?;
        Some(not_until.wait_time_from(DefaultClock::default().now()).as_secs() + 1)
    }

    fn counted(&self, client: IpAddr) -> IpAddr {
        if self.clients.len() < CLIENTS_MAX {
            return client;
        }
        // Looking through a full table for those who may be forgotten costs milliseconds: not for each request of
        // whoever filled it.
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let cleared_at_ms = self.cleared_at_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(cleared_at_ms) < CLEAR_INTERVAL_MS {
            return EVERYBODY_ELSE;
        }
        self.cleared_at_ms.store(now_ms, Ordering::Relaxed);
        self.clients.retain_recent();
        if self.clients.len() < CLIENTS_MAX { client } else { EVERYBODY_ELSE }
    }
}

/// Lets a request pass or answers 429 with `Retry-After`.
pub async fn limit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody, BoxBody>>, Error> {
    let limiter = request.app_data::<web::Data<Limiter>>().and_then(|limiter| limiter.as_ref().as_ref());
    if let Some(limiter) = limiter {
        let peer = request.peer_addr().map_or(EVERYBODY_ELSE, |peer| peer.ip());
        let client = client_address(peer, request.headers(), limiter.trusted_proxies);
        if let Some(seconds) = limiter.refused_for(client) {
            let answer = Problem::too_many_requests(seconds).respond(request.path());
            return Ok(request.into_response(answer).map_into_right_body());
        }
    }
    Ok(next.call(request).await?.map_into_left_body())
}

/// Whom a request counts for: its peer, or whom the outermost trusted proxy saw.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted_proxies: usize) -> IpAddr {
    let Some(position) = trusted_proxies.checked_sub(1) else { return network(peer) };
    let mut hops: Vec<&str> = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        hops.extend(value.to_str().unwrap_or_default().split(',').map(str::trim));
    }
    // Some proxies write the port as well.
    let address = |hop: &&str| hop.parse().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()));
    let seen = hops.iter().rev().nth(position).and_then(address);
    network(seen.unwrap_or(peer))
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => IpAddr::V4(address),
            None => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        },
    }
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
    fn only_what_trusted_proxies_wrote_is_believed() {
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

    #[test]
    fn a_host_cannot_multiply_itself_by_its_ipv6_addresses() {
        assert_eq!(network(address("2001:db8::1")), network(address("2001:db8::ffff:1")));
        assert_ne!(network(address("2001:db8::1")), network(address("2001:db8:0:1::1")));
        assert_eq!(network(address("::ffff:1.2.3.4")), address("1.2.3.4"));
    }
}
