//! The addresses of this node's interfaces, read by rtnetlink and again whenever the kernel says that one changed.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use portway_model::Event;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};

use crate::inbox::{EventSink, InboxClosed};

/// How long to go on collecting notifications before addresses are read again: an interface that comes up with many
/// addresses costs one reading.
const GATHER: Duration = Duration::from_millis(10);

/// How long to wait before a broken netlink socket is opened anew.
const REOPEN: Duration = Duration::from_secs(1);

/// Why the interface addresses cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum AddressesError {
    /// The netlink socket could not be opened or has broken.
    #[error("cannot listen to the kernel's address changes: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused to list the addresses.
    #[error("cannot list the interface addresses: {0}")]
    List(#[from] rtnetlink::Error),
}

/// Sends all interface addresses of the network namespace that the first poll runs in, at once and after each change.
/// Ends when nobody listens any more. Fails only if the very first list fails; later it warns and tries again.
pub async fn run(sink: EventSink) -> Result<(), AddressesError> {
    let mut sent = None;
    loop {
        match follow(&sink, &mut sent).await {
            Ok(InboxClosed) => return Ok(()),
            Err(error) if sent.is_none() => return Err(error),
            Err(error) => tracing::warn!(%error, "interface addresses may be out of date; trying again"),
        }
        tokio::time::sleep(REOPEN).await;
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
        // What the notification says does not matter, nor whether some were lost to an overrun: the list is read anew.
        if news.next().await.is_none() {
            break;
        }
        tokio::time::sleep(GATHER).await;
        while news.try_recv().is_ok() {}
    }
    drop(connection);
    Err(AddressesError::Socket(io::ErrorKind::ConnectionAborted.into()))
}

/// The task that drives the netlink socket ends with the future that uses it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

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

/// The address of a message, if the node owns it. An IPv6 address whose uniqueness is still in doubt (tentative) or
/// disproved may be another host's; the kernel tells again once it is settled.
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
    let in_doubt = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if in_doubt || flags.contains(AddressFlags::Dadfailed) {
        return None;
    }
    local.or(address)
}
