//! A socket for the kernel's nf_tables: commits transactions and lists objects.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use portway_model::Family;

use super::abi::{INET, chain, elem, generation, msg, nfproto, rule, set, table};
use super::decode::{self, Listed, ListedRule};
use super::encode::{self, Encoded, Position};
use super::own::OwnPorts;
use super::snapshot::{ListError, Snapshot};
use crate::netlink::{Message, MessageError, NetlinkError, NetlinkFamily, Socket, Writer, nfgenmsg};
use crate::nftables::object::{Chain, Element, HookPoint, Name, Set, Transaction};
use crate::nftables::{DroppingChain, DynamicSets, NfTables, text};

/// Number of attempts to list a table that changes meanwhile.
const MAX_SNAPSHOT_ATTEMPTS: u32 = 8;

/// Number of objects above which a commit is kept from this process's monitors: the kernel takes some 4 KiB for each
/// notification, and more time than for the object itself.
const QUIET_ABOVE: usize = 1_000;

/// A netlink socket for nf_tables, in the network namespace of the thread that opened it.
pub struct Connection {
    socket: Socket,
    own: OwnPorts,
    /// Number of its commits so far.
    commits: u32,
}

/// Figures of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Number of objects: elements, and operations that are not about elements.
    pub objects: usize,
    /// Number of bytes sent to the kernel.
    pub bytes: usize,
    /// Time that encoding took.
    pub encode: Duration,
    /// Time the kernel took.
    pub kernel: Duration,
}

/// A transaction that was not committed. Nothing of it was done, except perhaps after [`CommitError::Unknown`].
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The kernel refused operations: all that it would refuse at this moment, in their order. An operation that needs a
    /// refused one before it is refused with it.
    #[error("the kernel refused {} operations{}", .0.len(), first_of(.0))]
    Refused(Vec<Refusal>),
    /// The kernel refused the transaction as a whole.
    #[error("the kernel refused the transaction: {0}")]
    Whole(MessageError),
    /// Another program has changed nf_tables since the generation that the transaction was made for.
    #[error("another program has changed nf_tables meanwhile")]
    Stale,
    /// The transaction cannot be encoded, or sending it failed.
    #[error(transparent)]
    NotSent(NetlinkError),
    /// The kernel's answer is lost; a snapshot tells whether the transaction was done.
    #[error("the kernel's answer is lost, and the transaction may be done or not: {0}")]
    Unknown(NetlinkError),
}

/// The kernel's refusal of one operation, or of one element.
#[derive(Debug)]
pub struct Refusal {
    /// The index of the operation in the transaction.
    pub op: usize,
    /// The index of the element in the operation, where the operation is about elements.
    pub element: Option<usize>,
    /// The owner that the transaction names for it; see [`Transaction::push_for`].
    pub owner: Option<u32>,
    /// What was refused, such as "add chain x"; the `Display` of [`crate::nftables::Op`].
    pub what: String,
    /// The error number of the kernel, as an `io::Error`.
    pub source: io::Error,
    /// The kernel's own text, which few of its refusals have.
    pub message: Option<String>,
}

fn first_of(refused: &[Refusal]) -> String {
    refused.first().map(|first| format!(", the first to {}: {}", first.what, first.source)).unwrap_or_default()
}

impl Connection {
    /// Opens a socket and adds its netlink port to `own`.
    ///
    /// # Errors
    /// If there is no netfilter netlink socket to be had.
    pub fn open(own: &OwnPorts) -> Result<Self, NetlinkError> {
        let socket = Socket::open(NetlinkFamily::Netfilter)?;
        own.add(socket.port());
        Ok(Self { socket, own: own.clone(), commits: 0 })
    }

    /// The socket's netlink port, which the kernel's notifications name as the cause of its commits.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    fn send(&mut self, encoded: &Encoded) -> Result<Vec<MessageError>, NetlinkError> {
        let errors = self.socket.exchange(&encoded.batch, true)?;
        self.commits += u32::from(errors.is_empty());
        Ok(errors)
    }

    /// Runs `work` while this process's monitors receive no notifications, which saves the kernel from making them; large
    /// commits do so by themselves. Should other programs commit meanwhile, the monitors report that they missed it.
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

    /// Reads the generation of nf_tables in this network namespace, which every program's commits count up.
    ///
    /// # Errors
    /// If the kernel cannot be asked or refuses.
    pub fn generation(&mut self) -> Result<u32, NetlinkError> {
        let read = |message: &Message<'_>| message.attributes().find(generation::ID)?.be32();
        let found = self.socket.request(msg::GETGEN, 0, nfgenmsg(0, 0), |_| (), read)?;
        found.first().copied().ok_or(NetlinkError::Malformed)
    }

    /// Lists the names of all tables of a family.
    ///
    /// # Errors
    /// If the kernel cannot be asked or refuses.
    pub fn tables(&mut self, family: Family) -> Result<Vec<Name>, NetlinkError> {
        self.socket.dump(
            msg::GETTABLE,
            header(family),
            |_| (),
            |message| Some(message.attributes().find(table::NAME)?.string()?.into()),
        )
    }

    /// Lists the chains of a table.
    ///
    /// # Errors
    /// If the kernel cannot be asked or refuses.
    pub fn chains(&mut self, family: Family, name: &str) -> Result<Vec<Listed<Chain>>, NetlinkError> {
        self.of_table(msg::GETCHAIN, family, name, chain::TABLE, decode::read_chain)
    }

    /// Lists the rules of a table, each chain's in order.
    ///
    /// # Errors
    /// If the kernel cannot be asked or refuses.
    pub fn rules(&mut self, family: Family, name: &str) -> Result<Vec<ListedRule>, NetlinkError> {
        self.of_table(msg::GETRULE, family, name, rule::TABLE, |message| decode::read_rule(message, family))
    }

    /// Lists the sets and maps of a table.
    ///
    /// # Errors
    /// If the kernel cannot be asked or refuses.
    pub fn sets(&mut self, family: Family, name: &str) -> Result<Vec<Listed<Set>>, NetlinkError> {
        self.of_table(msg::GETSET, family, name, set::TABLE, |message| decode::read_set(message, family))
    }

    /// Lists the elements of a set, in the kernel's order; ranges of a single field by key.
    ///
    /// # Errors
    /// If there is no such set (`ENOENT`), or the kernel cannot be asked.
    pub fn elements(&mut self, family: Family, name: &str, set: &Set) -> Result<Vec<Element>, NetlinkError> {
        let fill = |out: &mut Writer<'_>| {
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

    /// Lists a table until no program has changed nf_tables meanwhile.
    fn read_at_one_moment(
        &mut self,
        family: Family,
        name: &str,
        dynamic: DynamicSets,
    ) -> Result<Snapshot, NetlinkError> {
        for _ in 0..MAX_SNAPSHOT_ATTEMPTS {
            let generation = self.generation()?;
            let snapshot = match self.read_table(family, name, generation, dynamic) {
                Err(error) if error.errno() == Some(libc::ENOENT) => None,
                other => Some(other?),
            };
            if self.generation()? == generation
                && let Some(snapshot) = snapshot
            {
                return Ok(snapshot);
            }
        }
        Err(NetlinkError::KeepsChanging { attempts: MAX_SNAPSHOT_ATTEMPTS })
    }

    fn read_table(
        &mut self,
        family: Family,
        name: &str,
        generation: u32,
        dynamic: DynamicSets,
    ) -> Result<Snapshot, NetlinkError> {
        if !self.tables(family)?.iter().any(|table| **table == *name) {
            return Ok(Snapshot { generation, ..Snapshot::default() });
        }
        let sets = self.sets(family, name)?;
        let mut elements = Vec::with_capacity(sets.len());
        for set in sets.iter().filter_map(|listed| listed.object.as_ref()).filter(|set| dynamic.lists(set)) {
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
        mut read: impl FnMut(&Message<'_>) -> Option<T>,
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

/// The kernel names a refused message, not a refused element. When a message of several elements was refused, the
/// transaction is sent once more with a message for each element of it, so that every element that is in the way is named.
/// Should the kernel take that one, it is committed.
impl NfTables for Connection {
    fn snapshot(&mut self, family: Family, table: &str, dynamic: DynamicSets) -> Result<Snapshot, ListError> {
        self.read_at_one_moment(family, table, dynamic).map_err(|source| ListError {
            family,
            table: table.into(),
            source,
        })
    }

    fn dropping_chains(&mut self, family: Family, hook: HookPoint) -> Result<Vec<DroppingChain>, NetlinkError> {
        let mut found = Vec::new();
        for (number, family) in [(nfproto(family), text::family(family)), (INET, "inet")] {
            let read = |message: &Message<'_>| decode::read_dropping(message, hook);
            let chains = self.socket.dump(msg::GETCHAIN, nfgenmsg(number, 0), |_| (), read)?;
            found.extend(chains.into_iter().map(|(table, chain)| DroppingChain { family, table, chain }));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn commit_at(&mut self, transaction: &Transaction, generation: Option<u32>) -> Result<Committed, CommitError> {
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
}

fn header(family: Family) -> [u8; 4] {
    nfgenmsg(nfproto(family), 0)
}

/// The refused messages of several elements: the refusal does not say which element is in the way.
fn unclear(encoded: &Encoded, errors: &[MessageError]) -> Vec<Range<Position>> {
    let spans = errors.iter().filter_map(|error| encoded.span(error.sequence));
    spans.filter(|span| span.elements > 1).map(|span| span.range.clone()).collect()
}

/// Names the operation and element of each error.
fn name(transaction: &Transaction, encoded: &Encoded, errors: Vec<MessageError>) -> CommitError {
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
            what: transaction.items[op].op.to_string(),
            source: error.source,
            message: error.message,
        });
    }
    CommitError::Refused(refused)
}

/// Encodes a transaction into the bytes that a [`Connection`] would send: the same for the same transaction.
///
/// # Errors
/// [`NetlinkError::TooLong`] if a rule is longer than 65,535 bytes.
pub fn encode(transaction: &Transaction) -> Result<Vec<u8>, NetlinkError> {
    Ok(encode::encode(transaction, 1, None, &[])?.batch.as_bytes().to_vec())
}
