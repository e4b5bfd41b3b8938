//! Talking to the kernel's nf_tables: commits and lists.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use portway_model::Family;

use super::abi::{chain, elem, generation, msg, nfproto, rule, set, table};
use super::decode::{self, Listed, ListedRule};
use super::encode::{self, Encoded, Position};
use super::own::OwnPorts;
use crate::netlink::{KernelError, NetlinkError, Protocol, Socket, nfgenmsg};
use crate::nftables::object::{Chain, Element, Name, Set, Transaction};

/// How often a table that changes while it is listed is listed anew.
const SNAPSHOT_ATTEMPTS: u32 = 8;

/// Commits of more objects than this are kept from the kernel's notifications: it takes some 4 KiB for each, and more time
/// than for the object itself.
const QUIET_ABOVE: usize = 1_000;

/// A socket for nf_tables, in the network namespace of the thread that opened it.
pub struct Connection {
    socket: Socket,
    own: OwnPorts,
    /// How often it has committed.
    commits: u32,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Operations that are not about elements, and elements.
    pub objects: usize,
    /// Bytes handed to the kernel.
    pub bytes: usize,
    /// Time to encode them.
    pub encode: Duration,
    /// Time the kernel took.
    pub kernel: Duration,
}

/// Why a transaction was not committed. Nothing of it was done, [`CommitError::Unknown`] excepted.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The kernel refused operations: all that it would refuse as things stand, in their order. An operation that needs
    /// one before it is refused with it.
    #[error("the kernel refused {} operations{}", .0.len(), first_of(.0))]
    Refused(Vec<Refusal>),
    /// The kernel refused the transaction as a whole.
    #[error("the kernel refused the transaction: {0}")]
    Whole(KernelError),
    /// Somebody has changed nf_tables since the generation that the transaction was made for.
    #[error("nf_tables has changed meanwhile")]
    Stale,
    /// The transaction cannot be encoded or sent.
    #[error(transparent)]
    NotSent(NetlinkError),
    /// The kernel's answer is lost: whether it was done must be listed.
    #[error("whether the kernel took the transaction is not known: {0}")]
    Unknown(NetlinkError),
}

/// The kernel's refusal of one operation, or of one element.
#[derive(Debug)]
pub struct Refusal {
    /// Which operation, by its index in the transaction.
    pub op: usize,
    /// Which element of it, where the operation is about elements.
    pub element: Option<usize>,
    /// Whose it is, as [`Transaction::push_for`] was told.
    pub owner: Option<u32>,
    /// Why.
    pub source: io::Error,
    /// What the kernel said besides.
    pub message: Option<String>,
}

fn first_of(refused: &[Refusal]) -> String {
    refused.first().map(|first| format!(", first operation {}: {}", first.op, first.source)).unwrap_or_default()
}

/// A table as the kernel has it at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The moment: a transaction may ask to be refused if it has passed.
    pub generation: u32,
    /// Whether there is such a table; without it the rest is empty.
    pub exists: bool,
    /// Its chains.
    pub chains: Vec<Listed<Chain>>,
    /// The rules of all chains; each chain's in order.
    pub rules: Vec<ListedRule>,
    /// Its sets and maps.
    pub sets: Vec<Listed<Set>>,
    /// The elements of the sets and maps that could be described, in the kernel's order.
    pub elements: Vec<(Name, Vec<Element>)>,
}

impl Connection {
    /// Opens a socket and adds its address to `own`.
    pub fn open(own: &OwnPorts) -> Result<Self, NetlinkError> {
        let socket = Socket::open(Protocol::Netfilter)?;
        own.add(socket.port());
        Ok(Self { socket, own: own.clone(), commits: 0 })
    }

    /// The socket's address, which the kernel's notifications name as the cause of what it commits.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Commits a transaction: all of it or nothing.
    ///
    /// The kernel names a refused message, not a refused element; when a message of several was refused, the transaction
    /// is sent once more with a message for each element of it, so that every element that is in the way is named. Should
    /// the kernel take that one, all is well.
    pub fn commit(&mut self, transaction: &Transaction) -> Result<Committed, CommitError> {
        self.commit_at(transaction, None)
    }

    /// Commits a transaction if nobody has changed nf_tables since `generation`.
    pub fn commit_at(&mut self, transaction: &Transaction, generation: Option<u32>) -> Result<Committed, CommitError> {
        let mut done = Committed::default();
        if transaction.is_empty() {
            return Ok(done);
        }
        let mut alone: Vec<Range<Position>> = Vec::new();
        loop {
            let start = Instant::now();
            let encoded = encode::encode(transaction, self.socket.next_sequence(), generation, &alone)
                .map_err(CommitError::NotSent)?;
            let sent = Instant::now();
            let answers = if encoded.objects > QUIET_ABOVE {
                self.quietly(|connection| connection.send(&encoded))
            } else {
                self.send(&encoded)
            };
            done.objects = encoded.objects;
            done.bytes += encoded.batch.as_bytes().len();
            done.encode += sent.duration_since(start);
            done.kernel += sent.elapsed();
            let errors = match answers {
                Ok(errors) if errors.is_empty() => return Ok(done),
                Ok(errors) => errors,
                Err(error @ NetlinkError::System { call: "recv(AF_NETLINK)", .. } | error @ NetlinkError::Overrun) => {
                    return Err(CommitError::Unknown(error));
                }
                Err(error) => return Err(CommitError::NotSent(error)),
            };
            let unclear = unclear(&encoded, &errors);
            if unclear.is_empty() || !alone.is_empty() {
                return Err(name(transaction, &encoded, errors));
            }
            alone = unclear;
        }
    }

    fn send(&mut self, encoded: &Encoded) -> Result<Vec<KernelError>, NetlinkError> {
        let errors = self.socket.exchange(&encoded.batch, true)?;
        self.commits += u32::from(errors.is_empty());
        Ok(errors)
    }

    /// Does something during which the kernel has nobody of this process to notify; large commits do so by themselves.
    /// Should others commit meanwhile, the watches are told that they missed it.
    pub fn quietly<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let Some(quiet) = self.own.quiet() else { return work(self) };
        let (before, commits) = (self.generation(), self.commits);
        let result = work(self);
        quiet.end(|| match (before, self.generation()) {
            (Ok(before), Ok(after)) => after.wrapping_sub(before) != self.commits.wrapping_sub(commits),
            _ => true,
        });
        result
    }

    /// The kernel's generation of nf_tables in this network namespace: every commit of anybody's counts it up.
    pub fn generation(&mut self) -> Result<u32, NetlinkError> {
        let read = |message: &crate::netlink::Message<'_>| message.attributes().find(generation::ID)?.be32();
        let found = self.socket.request(msg::GETGEN, 0, nfgenmsg(0, 0), |_| (), read)?;
        found.first().copied().ok_or(NetlinkError::Malformed)
    }

    /// The names of all tables of a family.
    pub fn tables(&mut self, family: Family) -> Result<Vec<Name>, NetlinkError> {
        self.socket.dump(
            msg::GETTABLE,
            header(family),
            |_| (),
            |message| Some(message.attributes().find(table::NAME)?.string()?.into()),
        )
    }

    /// A table's chains.
    pub fn chains(&mut self, family: Family, name: &str) -> Result<Vec<Listed<Chain>>, NetlinkError> {
        self.of_table(msg::GETCHAIN, family, name, chain::TABLE, decode::read_chain)
    }

    /// A table's rules, each chain's in order.
    pub fn rules(&mut self, family: Family, name: &str) -> Result<Vec<ListedRule>, NetlinkError> {
        self.of_table(msg::GETRULE, family, name, rule::TABLE, |message| decode::read_rule(message, family))
    }

    /// A table's sets and maps.
    pub fn sets(&mut self, family: Family, name: &str) -> Result<Vec<Listed<Set>>, NetlinkError> {
        self.of_table(msg::GETSET, family, name, set::TABLE, |message| decode::read_set(message, family))
    }

    /// A set's elements, in the kernel's order; ranges of a single field by key.
    pub fn elements(&mut self, family: Family, name: &str, set: &Set) -> Result<Vec<Element>, NetlinkError> {
        let fill = |out: &mut crate::netlink::Writer<'_>| {
            out.string(elem::LIST_TABLE, name);
            out.string(elem::LIST_SET, &set.name);
        };
        let lists = self.socket.dump(msg::GETSETELEM, header(family), fill, |message| {
            let mut halves = Vec::new();
            decode::read_elements(message, &mut halves);
            Some(halves)
        })?;
        Ok(decode::join(lists.into_iter().flatten().collect(), decode::single_ranges(set)))
    }

    /// A whole table, at one moment. Of the sets that `with_elements` is against, no elements are listed.
    pub fn snapshot(
        &mut self,
        family: Family,
        name: &str,
        with_elements: impl Fn(&Set) -> bool,
    ) -> Result<Snapshot, NetlinkError> {
        for _ in 0..SNAPSHOT_ATTEMPTS {
            let generation = self.generation()?;
            let snapshot = match self.read_table(family, name, generation, &with_elements) {
                Err(error) if error.errno() == Some(libc::ENOENT) => None,
                other => Some(other?),
            };
            if self.generation()? == generation
                && let Some(snapshot) = snapshot
            {
                return Ok(snapshot);
            }
        }
        Err(NetlinkError::KeepsChanging { attempts: SNAPSHOT_ATTEMPTS })
    }

    fn read_table(
        &mut self,
        family: Family,
        name: &str,
        generation: u32,
        with_elements: impl Fn(&Set) -> bool,
    ) -> Result<Snapshot, NetlinkError> {
        if !self.tables(family)?.iter().any(|table| **table == *name) {
            return Ok(Snapshot { generation, ..Snapshot::default() });
        }
        let sets = self.sets(family, name)?;
        let mut elements = Vec::with_capacity(sets.len());
        for set in sets.iter().filter_map(|listed| listed.object.as_ref()).filter(|set| with_elements(set)) {
            elements.push((set.name.clone(), self.elements(family, name, set)?));
        }
        Ok(Snapshot {
            generation,
            exists: true,
            chains: self.chains(family, name)?,
            rules: self.rules(family, name)?,
            sets,
            elements,
        })
    }

    /// Lists what belongs to one table. The kernel filters chains and sets by table only in newer versions, or not at
    /// all, so each message is looked at.
    fn of_table<T>(
        &mut self,
        kind: u16,
        family: Family,
        name: &str,
        attribute: u16,
        mut read: impl FnMut(&crate::netlink::Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        self.socket.dump(
            kind,
            header(family),
            |out| out.string(attribute, name),
            |message| {
                let table = message.attributes().find(attribute)?.string()?;
                if table == name { read(message) } else { None }
            },
        )
    }
}

fn header(family: Family) -> [u8; 4] {
    nfgenmsg(nfproto(family), 0)
}

/// The messages of several elements that were refused.
fn unclear(encoded: &Encoded, errors: &[KernelError]) -> Vec<Range<Position>> {
    let spans = errors.iter().filter_map(|error| encoded.span(error.sequence));
    spans.filter(|span| span.elements > 1).map(|span| span.range.clone()).collect()
}

/// Says what each error is about.
fn name(transaction: &Transaction, encoded: &Encoded, errors: Vec<KernelError>) -> CommitError {
    let mut refused = Vec::with_capacity(errors.len());
    for error in errors {
        let Some(span) = encoded.span(error.sequence) else {
            return if error.source.raw_os_error() == Some(libc::ERESTART) {
                CommitError::Stale
            } else {
                CommitError::Whole(error)
            };
        };
        let (op, element) = span.range.start;
        let element = (span.elements > 0).then_some(element);
        refused.push(Refusal {
            op,
            element,
            owner: transaction.items[op].owner.of(element),
            source: error.source,
            message: error.message,
        });
    }
    CommitError::Refused(refused)
}

/// The bytes that a transaction hands to the kernel: the same for the same transaction.
///
/// # Errors
/// [`NetlinkError::TooLong`] if a rule is longer than 65,535 bytes.
pub fn encode(transaction: &Transaction) -> Result<Vec<u8>, NetlinkError> {
    Ok(encode::encode(transaction, 1, None, &[])?.batch.as_bytes().to_vec())
}
