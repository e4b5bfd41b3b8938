//! The addresses of this node's interfaces, read over rtnetlink at the start and after each change.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use portway_model::Event;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};

use crate::inbox::{EventSink, InboxClosed};

/// How long to collect notifications before addresses are read again, so that an interface with many addresses costs
/// one read.
const COLLECT_PERIOD: Duration = Duration::from_millis(10);

/// The wait before a broken netlink socket is reopened.
const REOPEN_DELAY: Duration = Duration::from_secs(1);

/// Why the interface addresses cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AddressesError {
    /// The netlink socket could not be opened or failed.
    #[error("cannot listen to the kernel's address changes: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused to list the addresses.
    #[error("cannot list the interface addresses: {0}")]
    List(#[from] rtnetlink::Error),
}

/// Sends all interface addresses of the current network namespace, at once and after each change, until the sync loop
/// ends. The namespace is that of the thread that polls first.
///
/// # Errors
/// If the first list fails. Later failures are logged and retried.
pub async fn run(sink: EventSink) -> Result<(), AddressesError> {
    let mut sent = None;
    loop {
        match follow(&sink, &mut sent).await {
            Ok(InboxClosed) => return Ok(()),
            Err(error) if sent.is_none() => return Err(error),
            Err(error) => tracing::warn!(%error, "interface addresses may be outdated; retrying"),
        }
        tokio::time::sleep(REOPEN_DELAY).await;
    }
}

async fn follow(sink: &EventSink, sent: &mut Option<BTreeSet<IpAddr>>) -> Result<InboxClosed, AddressesError> {
    // The groups are joined before the first list, so that no change falls between the two.
    let (connection, handle, mut news) =
        new_multicast_connection(&[MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr])?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    loop {
        let found = list(&handle).await?;
        if sent.as_ref() != Some(&found) {
            let event = Event::InterfaceAddresses(found.iter().copied().collect());
            if let Err(closed) = sink.send(event).await {
                return Ok(closed);
            }
            *sent = Some(found);
        }
        // The content of a notification does not matter, nor whether some were lost: the whole list is read again.
        if news.next().await.is_none() {
            break;
        }
        tokio::time::sleep(COLLECT_PERIOD).await;
        while news.try_recv().is_ok() {}
    }
    drop(connection);
    Err(AddressesError::Socket(io::ErrorKind::ConnectionAborted.into()))
}

/// Ends the task that drives the netlink socket together with the future that uses it.
pub(super) struct AbortOnDrop(pub(super) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn list(handle: &Handle) -> Result<BTreeSet<IpAddr>, AddressesError> {
    let mut messages = handle.address().get().execute();
    let mut found = BTreeSet::new();
    while let Some(message) = messages.try_next().await? {
        found.extend(usable(&message));
    }
    Ok(found)
}

/// The address of a message, if the node owns it. An IPv6 address that is tentative or failed duplicate address
/// detection may be another host's; the kernel sends another notification once it is decided.
fn usable(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    let mut local = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            // On a point-to-point interface the other attribute names the far end.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let tentative = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if tentative || flags.contains(AddressFlags::Dadfailed) {
        return None;
    }
    local.or(address)
}
