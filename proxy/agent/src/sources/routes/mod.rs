//! The source addresses that the node's routes name (`src`), read over rtnetlink at the start and after each change, for
//! masquerade (contract OWN-11).
//!
//! The main table of each family is followed: it is the one that the kernel's default rules lead to. Tables that other
//! routing rules lead to are not, nor is the table `default`, where the kernel looks after the main table found nothing.
//! A source counts only if it is an address of one of the node's interfaces.

mod list;
mod select;

use std::io;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use portway_model::{Event, Family, RouteSource};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::time::Instant;

pub use list::{MAX_ROUTES, MAX_SOURCES};

use self::list::TooMany;
use super::addresses::AbortOnDrop;
use crate::inbox::{EventSink, InboxClosed};

/// How long at least to collect notifications before routes are read again.
const COLLECT_PERIOD: Duration = Duration::from_millis(10);

/// The least time from one read to the next, as a multiple of what the first took: routes that change without pause cost a
/// tenth of a processor at most.
const REST_FACTOR: u32 = 10;

/// The same while a table has too many routes.
const TOO_MANY_PERIOD: Duration = Duration::from_secs(60);

/// The wait before a netlink socket that failed is reopened.
const REOPEN_DELAY: Duration = Duration::from_secs(1);

/// What may change the sources: routes; addresses and links, because the kernel drops routes with them without a word.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Link,
];

/// Why the routes cannot be read.
#[derive(Debug, thiserror::Error)]
enum RoutesError {
    /// A netlink socket could not be opened or failed.
    #[error("a netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused to list routes, addresses or a link.
    #[error("the kernel: {0}")]
    List(#[from] rtnetlink::Error),
}

/// Follows the sources that routes of the current network namespace name. The namespace is that of the thread that polls
/// first.
pub struct RouteFollower {
    sink: EventSink,
    listener: Option<Listener>,
    sent: Option<Vec<RouteSource>>,
    too_many: [Option<TooMany>; 2],
    /// Whether the last read failed, and it was said.
    failing: bool,
    /// When the next read may begin.
    next_read: Instant,
}

/// A socket that receives notifications, which are all alike.
struct Listener {
    news: BoxStream<'static, ()>,
    _connection: AbortOnDrop,
}

impl RouteFollower {
    /// Reads the routes and sends what they name. If they cannot be read, that is logged, and an empty list is sent.
    ///
    /// # Errors
    /// If the sync loop has ended.
    pub async fn start(sink: EventSink) -> Result<Self, InboxClosed> {
        let mut follower =
            Self { sink, listener: None, sent: None, too_many: [None; 2], failing: false, next_read: Instant::now() };
        follower.update().await?;
        Ok(follower)
    }

    /// Sends what routes name after each change, until the sync loop ends.
    pub async fn run(mut self) -> InboxClosed {
        loop {
            match &mut self.listener {
                Some(listener) => match listener.news.next().await {
                    Some(()) => {
                        // What a notification says does not matter, nor whether some were lost. They are taken as they
                        // come, so that they do not pile up.
                        let all = async { while listener.news.next().await.is_some() {} };
                        let until = self.next_read.max(Instant::now() + COLLECT_PERIOD);
                        if tokio::time::timeout_at(until, all).await.is_ok() {
                            self.listener = None;
                        }
                    }
                    None => self.listener = None,
                },
                None => tokio::time::sleep(REOPEN_DELAY).await,
            }
            if let Err(closed) = self.update().await {
                return closed;
            }
        }
    }

    /// Reads the routes, and sends what they name if that has changed.
    async fn update(&mut self) -> Result<(), InboxClosed> {
        let begun = Instant::now();
        let found = match self.read().await {
            Ok(found) => found,
            Err(error) => {
                self.listener = None;
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        %error,
                        "cannot read this node's routes; masquerade does not follow changes of the source addresses that \
                         they name; retrying"
                    );
                }
                return if self.sent.is_none() { self.send(Vec::new()).await } else { Ok(()) };
            }
        };
        self.failing = false;
        let took = begun.elapsed();
        let mut rest = took * REST_FACTOR;
        let mut sources = Vec::new();
        for (family, found) in Family::ALL.into_iter().zip(found) {
            let too_many = match found {
                Ok(of_family) => {
                    sources.extend(of_family);
                    None
                }
                Err(too_many) => {
                    rest = TOO_MANY_PERIOD;
                    Some(too_many)
                }
            };
            let before = std::mem::replace(&mut self.too_many[family as usize], too_many);
            if let Some(too_many) = too_many.filter(|_| before != too_many) {
                warn(family, too_many);
            }
        }
        self.next_read = Instant::now() + rest;
        if self.sent.as_ref() == Some(&sources) {
            return Ok(());
        }
        tracing::debug!(sources = sources.len(), ?took, "masquerade follows the source addresses that routes name");
        self.send(sources).await
    }

    async fn read(&mut self) -> Result<[list::Found; 2], RoutesError> {
        // The groups are joined before the first list, so that no change falls between the two.
        if self.listener.is_none() {
            let (connection, _, news) = new_multicast_connection(&GROUPS)?;
            let connection = AbortOnDrop(tokio::spawn(connection));
            self.listener = Some(Listener { news: news.map(drop).boxed(), _connection: connection });
        }
        list::list().await
    }

    async fn send(&mut self, sources: Vec<RouteSource>) -> Result<(), InboxClosed> {
        self.sink.send(Event::RouteSources(sources.clone())).await?;
        self.sent = Some(sources);
        Ok(())
    }
}

fn warn(family: Family, too_many: TooMany) {
    match too_many {
        TooMany::Routes => tracing::warn!(
            %family,
            "the main routing table has more than {MAX_ROUTES} routes: masquerade takes the address of the outgoing \
             interface, also where a route names another source; the table is read again at most once a minute"
        ),
        TooMany::Sources => tracing::warn!(
            %family,
            "routes to more than {MAX_SOURCES} destinations name a source address of their own: masquerade takes the address \
             of the outgoing interface instead; the table is read again at most once a minute"
        ),
    }
}
