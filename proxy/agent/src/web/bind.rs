//! Binds listening addresses, and tries busy ones again.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use crate::events::{Events, Reason};

/// How many connections wait to be accepted.
const BACKLOG: i32 = 1024;

/// The wait between two attempts to bind an address, as in kube-proxy (contract HZ-6).
const RETRY: Duration = Duration::from_secs(5);

/// Listens on one address, an unspecified one for its own family only.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, true)
}

/// Listens on all addresses of both families, or of IPv4 where the kernel has no IPv6.
pub(crate) fn both_families(port: u16) -> io::Result<TcpListener> {
    match listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), false) {
        Err(error) if has_no_ipv6(&error) => listen(SocketAddr::new([0, 0, 0, 0].into(), port), true),
        bound => bound,
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let errors = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|error| errors.contains(&error))
}

fn listen(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What follows if a server's address cannot be bound.
#[derive(Clone, Debug)]
pub(crate) struct BindRetry {
    /// What is served there, for the log: "healthz".
    pub(crate) what: &'static str,
    /// The reason of the event that says so.
    pub(crate) reason: Reason,
    /// Receives the event about an address that is busy.
    pub(crate) events: Events,
    /// Whether it ends the process (`bindAddressHardFail`).
    pub(crate) fatal: bool,
}

impl BindRetry {
    /// Binds an address, every 5 s until it works. An unspecified address listens for both families, as in kube-proxy.
    pub(super) async fn until_bound(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let mut reported = false;
        loop {
            let bound = match address.ip() {
                ip if ip.is_unspecified() => both_families(address.port()),
                IpAddr::V4(_) | IpAddr::V6(_) => bind(address),
            };
            let error = match bound {
                Ok(listener) => return Ok(listener),
                Err(error) => error,
            };
            let what = self.what;
            let sentence = format!("failed to start {what} on {address}: {error}");
            if !reported {
                self.events.node(self.reason, &sentence);
                reported = true;
            }
            if self.fatal {
                return Err(io::Error::new(error.kind(), sentence));
            }
            tracing::warn!(%address, %error, retry_seconds = RETRY.as_secs(), "cannot serve {what}; retrying");
            tokio::time::sleep(RETRY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::testing::ask;
    use crate::web::{Reply, at_once, serve, serve_address};

    #[tokio::test]
    async fn an_unspecified_address_answers_both_families() {
        let listener = both_families(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(serve(listener, at_once(|_| Reply::text(http::StatusCode::OK, "here"))));
        for ip in [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()] {
            assert!(ask((ip, port).into(), "GET", "/").await.ends_with("\r\n\r\nhere"), "{ip}");
        }
    }

    #[tokio::test]
    async fn hz_6_a_busy_address_is_retried_every_5_seconds_and_is_one_event() {
        let busy = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = busy.local_addr().unwrap();
        let (events, mut posted) = Events::recording();
        let retry =
            BindRetry { what: "healthz", reason: Reason::FailedToStartProxierHealthcheck, events, fatal: false };
        tokio::time::pause();
        let start = tokio::time::Instant::now();
        let serving = tokio::spawn(serve_address(address, retry, at_once(|_| Reply::text(http::StatusCode::OK, "up"))));
        tokio::time::sleep(Duration::from_secs(7)).await;
        drop(busy);
        // The third attempt, after 10 s, finds the address free.
        tokio::time::sleep_until(start + Duration::from_millis(10_100)).await;
        tokio::time::resume();
        assert!(ask(address, "GET", "/").await.ends_with("up"));
        let event = posted.try_recv().unwrap();
        assert_eq!(event.reason, Reason::FailedToStartProxierHealthcheck);
        assert!(event.note.starts_with(&format!("failed to start healthz on {address}: ")), "{}", event.note);
        assert!(posted.try_recv().is_err(), "one outage is one event");
        serving.abort();
    }

    #[tokio::test]
    async fn hz_6_a_busy_address_is_fatal_only_with_bind_address_hard_fail() {
        let busy = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = busy.local_addr().unwrap();
        let (events, mut posted) = Events::recording();
        let retry = BindRetry { what: "metrics", reason: Reason::FailedToStartMetricServer, events, fatal: true };
        let failed = serve_address(address, retry, at_once(|_| Reply::not_found())).await.unwrap_err();
        assert!(failed.to_string().starts_with(&format!("failed to start metrics on {address}: ")), "{failed}");
        assert_eq!(posted.try_recv().unwrap().reason, Reason::FailedToStartMetricServer);
    }
}
