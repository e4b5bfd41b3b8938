//! A socket for the kernel's nf_tables: commits transactions and lists objects.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use portway_model::Family;

use super::abi::{INET, chain, elem, generation, msg, nfproto, rule, set, table};
use super::decode::{self, Half, Listed, ListedRule};
use super::encode::{self, Encoded, Position};
use super::own::OwnPorts;
use super::snapshot::{ListError, Snapshot};
use super::watch::TableWatch;
use crate::netlink::{Message, MessageError, NetlinkError, NetlinkFamily, Socket, Writer, nfgenmsg};
use crate::nftables::object::{Chain, Element, HookPoint, Name, Set, Transaction};
use crate::nftables::{DroppingChain, DynamicSets, NfTables, text};

/// Number of attempts to list a table that changes meanwhile.
const MAX_SNAPSHOT_ATTEMPTS: u32 = 8;

/// How long such attempts go on; a second one is always made.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_millis(500);

/// Number of dumps of all chains in which those of one table are looked for, while others change theirs.
const MAX_CHAIN_DUMPS: u32 = 8;

/// Number of dumps of a set whose elements the kernel moves meanwhile.
const MAX_ELEMENT_DUMPS: u32 = 16;

/// Number of attempts to send a transaction that is made for a table nobody has touched, while others commit to theirs.
const MAX_GUARDED_COMMITS: u32 = 8;

/// Number of objects above which a commit is kept from this process's monitors: the kernel takes some 4 KiB for each
/// notification, and more time than for the object itself.
const QUIET_ABOVE: usize = 1_000;

/// A netlink socket for nf_tables, in the network namespace of the thread that opened it.
pub struct Connection {
    socket: Socket,
    own: OwnPorts,
    /// Number of its commits so far.
    commits: u32,
    /// The table that is watched, between [`NfTables::watch`] and [`NfTables::unwatch`].
    watch: Option<TableWatch>,
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
        Ok(Self { socket, own: own.clone(), commits: 0, watch: None })
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
        let (fill, read) = of_table(name, chain::TABLE, decode::read_chain);
        self.socket.dump(msg::GETCHAIN, header(family), fill, read)
    }

    /// Lists the rules of a table, each chain's in order.
    ///
    /// # Errors
    /// If the kernel cannot be asked or refuses.
    pub fn rules(&mut self, family: Family, name: &str) -> Result<Vec<ListedRule>, NetlinkError> {
        let (fill, read) = of_table(name, rule::TABLE, |message| decode::read_rule(message, family));
        self.socket.dump(msg::GETRULE, header(family), fill, read)
    }

    /// Lists the sets and maps of a table.
    ///
    /// # Errors
    /// If the kernel cannot be asked or refuses.
    pub fn sets(&mut self, family: Family, name: &str) -> Result<Vec<Listed<Set>>, NetlinkError> {
        let (fill, read) = of_table(name, set::TABLE, |message| decode::read_set(message, family));
        self.socket.dump(msg::GETSET, header(family), fill, read)
    }

    /// Lists the elements of a set, in the kernel's order; ranges of a single field by key.
    ///
    /// # Errors
    /// If there is no such set (`ENOENT`), or the kernel cannot be asked.
    pub fn elements(&mut self, family: Family, name: &str, set: &Set) -> Result<Vec<Element>, NetlinkError> {
        let lists = self.socket.dump(msg::GETSETELEM, header(family), of_set(name, set), read_halves)?;
        Ok(joined(lists, set))
    }

    /// Lists a table until nobody has changed it meanwhile. Commits to other tables do not matter if it is watched;
    /// if it cannot be, any commit counts as a change.
    fn read_at_one_moment(
        &mut self,
        family: Family,
        name: &str,
        dynamic: DynamicSets,
    ) -> Result<Snapshot, NetlinkError> {
        let start = Instant::now();
        let mut attempts = 0;
        while attempts < 2 || (attempts < MAX_SNAPSHOT_ATTEMPTS && start.elapsed() < SNAPSHOT_TIMEOUT) {
            attempts += 1;
            if let Some(watch) = &mut self.watch {
                watch.forget();
            }
            let before = self.generation()?;
            let listed = match self.read_table(family, name, dynamic) {
                Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EINTR)) => None,
                other => Some(other?),
            };
            let generation = self.generation()?;
            if let Some(snapshot) = listed
                && (generation == before || self.is_untouched(family, name))
            {
                return Ok(Snapshot { generation, ..snapshot });
            }
        }
        Err(NetlinkError::KeepsChanging { attempts })
    }

    /// Whether nobody has changed the table since its listing began, for all that is known.
    fn is_untouched(&mut self, family: Family, name: &str) -> bool {
        self.watch.as_mut().is_some_and(|watch| watch.is_of(family, name) && !watch.is_touched())
    }

    /// Lists a table in several requests. The kernel lists the rules and sets of one table, and the elements of one set,
    /// by their position in it: what others do to other tables moves none of them, although the kernel marks each such
    /// dump as interrupted.
    fn read_table(&mut self, family: Family, name: &str, dynamic: DynamicSets) -> Result<Snapshot, NetlinkError> {
        let Some((flags, used)) = self.table(family, name)? else { return Ok(Snapshot::default()) };
        let (fill, read) = of_table(name, set::TABLE, |message| decode::read_set(message, family));
        let sets = self.socket.dump_once(msg::GETSET, header(family), fill, read)?.found;
        let mut elements = Vec::with_capacity(sets.len());
        for set in sets.iter().filter_map(|listed| listed.object.as_ref()).filter(|set| dynamic.lists(set)) {
            elements.push((set.name.clone(), self.all_elements(family, name, set)?));
        }
        let (chains, dropping) = self.all_chains(family, name, used.saturating_sub(sets.len()))?;
        let (fill, read) = of_table(name, rule::TABLE, |message| decode::read_rule(message, family));
        let rules = self.socket.dump_once(msg::GETRULE, header(family), fill, read)?.found;
        let dormant = flags & table::FLAG_DORMANT != 0;
        let other_flags = flags & table::FLAGS_OF_OWNERS != 0;
        Ok(Snapshot { generation: 0, exists: true, dormant, other_flags, chains, dropping, rules, sets, elements })
    }

    /// Lists the elements of a set that nobody changes. While the kernel moves them to a larger hash table, which goes on
    /// for a moment after many were added, a dump repeats some and skips as many others.
    fn all_elements(&mut self, family: Family, name: &str, set: &Set) -> Result<Vec<Element>, NetlinkError> {
        for _ in 0..MAX_ELEMENT_DUMPS {
            let dump = self.socket.dump_once(msg::GETSETELEM, header(family), of_set(name, set), read_halves)?;
            let elements = joined(dump.found, set);
            let mut known = HashSet::with_capacity(elements.len());
            if set.flags.interval || elements.iter().all(|element| known.insert(&element.key)) {
                return Ok(elements);
            }
        }
        Err(NetlinkError::KeepsChanging { attempts: MAX_ELEMENT_DUMPS })
    }

    /// A table's flags, and the number of its chains, sets and other objects; `None` if there is no such table.
    fn table(&mut self, family: Family, name: &str) -> Result<Option<(u32, usize)>, NetlinkError> {
        let fill = |out: &mut Writer<'_>| out.string(table::NAME, name);
        let read = |message: &Message<'_>| {
            let number = |kind| message.attributes().find(kind)?.be32();
            Some((number(table::FLAGS)?, usize::try_from(number(table::USE)?).ok()?))
        };
        match self.socket.request(msg::GETTABLE, 0, header(family), fill, read) {
            Ok(found) => found.first().copied().map(Some).ok_or(NetlinkError::Malformed),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists the chains of a table that nobody changes. The kernel lists those of all tables by their position among all,
    /// so that chains which others add or delete make it repeat or skip some of this table's. What several dumps have
    /// found together is all of them once there are as many as the table counts.
    ///
    /// The second list has those whose policy is drop, as they would be with accept.
    fn all_chains(
        &mut self,
        family: Family,
        name: &str,
        count: usize,
    ) -> Result<(Vec<Listed<Chain>>, Vec<Chain>), NetlinkError> {
        let (mut chains, mut dropping) = (Vec::with_capacity(count), Vec::new());
        let mut known: HashSet<u64> = HashSet::with_capacity(count);
        let both = |message: &Message<'_>| Some((decode::read_chain(message)?, decode::read_dropping_chain(message)));
        for _ in 0..MAX_CHAIN_DUMPS {
            let (fill, read) = of_table(name, chain::TABLE, both);
            let dump = self.socket.dump_once(msg::GETCHAIN, header(family), fill, read)?;
            for (chain, drops) in dump.found {
                if known.insert(chain.handle) {
                    chains.push(chain);
                    dropping.extend(drops);
                }
            }
            if !dump.interrupted || chains.len() >= count {
                break;
            }
        }
        Ok((chains, dropping))
    }

    /// Sends an encoded transaction. One that was made at a generation goes with the present one, as long as nobody has
    /// touched the table.
    fn send_guarded(
        &mut self,
        transaction: &Transaction,
        encoded: &mut Encoded,
        mut generation: Option<u32>,
    ) -> Result<Vec<MessageError>, NetlinkError> {
        let mut attempts = 0;
        loop {
            if let Some(old) = generation {
                let renewed = self.renewed(transaction, old);
                encoded.set_generation(renewed);
                generation = Some(renewed);
            }
            let errors = if encoded.objects > QUIET_ABOVE {
                self.quietly(|connection| connection.send(encoded))
            } else {
                self.send(encoded)
            }?;
            attempts += 1;
            let again = attempts < MAX_GUARDED_COMMITS && self.is_untouched(transaction.family, &transaction.table);
            if !(is_stale(encoded, &errors) && again) {
                return Ok(errors);
            }
        }
    }

    /// The generation to commit at, of a transaction that was made for an earlier one: the present one, if nobody has
    /// changed the table meanwhile; else the earlier one, which the kernel refuses.
    fn renewed(&mut self, transaction: &Transaction, generation: u32) -> u32 {
        match self.generation() {
            Ok(now) if now != generation && self.is_untouched(transaction.family, &transaction.table) => now,
            _ => generation,
        }
    }
}

/// Asks for what belongs to one table, and reads what does: the kernel filters chains only in newer versions, or not at
/// all, so each message is looked at.
fn of_table<T>(
    name: &str,
    attribute: u16,
    mut read: impl FnMut(&Message<'_>) -> Option<T>,
) -> (impl Fn(&mut Writer<'_>), impl FnMut(&Message<'_>) -> Option<T>) {
    let fill = move |out: &mut Writer<'_>| out.string(attribute, name);
    let read = move |message: &Message<'_>| {
        let table = message.attributes().find(attribute)?.string()?;
        if table == name { read(message) } else { None }
    };
    (fill, read)
}

/// Asks for the elements of one set.
fn of_set(table: &str, set: &Set) -> impl Fn(&mut Writer<'_>) {
    move |out| {
        out.string(elem::LIST_TABLE, table);
        out.string(elem::LIST_SET, &set.name);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "dumps take a reader that may skip a message")]
fn read_halves(message: &Message<'_>) -> Option<Vec<Half>> {
    let mut halves = Vec::new();
    decode::read_elements(message, &mut halves);
    Some(halves)
}

fn joined(lists: Vec<Vec<Half>>, set: &Set) -> Vec<Element> {
    decode::join(lists.into_iter().flatten().collect(), decode::single_ranges(set))
}

/// The kernel names a refused message, not a refused element. When a message of several elements was refused, the
/// transaction is sent once more with a message for each element of it, so that every element that is in the way is named.
/// Should the kernel take that one, it is committed.
impl NfTables for Connection {
    fn watch(&mut self, family: Family, table: &str) {
        self.watch = TableWatch::open(&self.own, family, table).ok();
    }

    fn unwatch(&mut self) {
        self.watch = None;
    }

    fn snapshot(&mut self, family: Family, table: &str, dynamic: DynamicSets) -> Result<Snapshot, ListError> {
        let watched = self.watch.is_some();
        if !watched {
            self.watch(family, table);
        }
        let snapshot = self.read_at_one_moment(family, table, dynamic);
        if !watched {
            self.unwatch();
        }
        snapshot.map_err(|source| ListError { family, table: table.into(), source })
    }

    fn dropping_chains(&mut self, family: Family, hook: HookPoint) -> Result<Vec<DroppingChain>, NetlinkError> {
        let mut found = Vec::new();
        for (number, family) in [(nfproto(family), text::family(family)), (INET, "inet")] {
            let read = |message: &Message<'_>| decode::read_dropping(message, hook);
            // While others add and delete chains, one dump may skip some.
            for _ in 0..MAX_CHAIN_DUMPS {
                let dump = self.socket.dump_once(msg::GETCHAIN, nfgenmsg(number, 0), |_| (), read)?;
                found.extend(dump.found.into_iter().map(|(table, chain)| DroppingChain { family, table, chain }));
                if !dump.interrupted {
                    break;
                }
            }
        }
        found.sort_unstable();
        found.dedup();
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
            let mut encoded = encode::encode(transaction, self.socket.next_sequence(), generation, &alone)
                .map_err(CommitError::NotSent)?;
            let sent = Instant::now();
            let answers = self.send_guarded(transaction, &mut encoded, generation);
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
    let mut unclear: Vec<_> = spans.filter(|span| span.elements > 1).map(|span| span.range.clone()).collect();
    unclear.sort_unstable_by_key(|range| range.start);
    unclear.dedup();
    unclear
}

/// Whether the kernel refused the transaction because its generation has passed.
fn is_stale(encoded: &Encoded, errors: &[MessageError]) -> bool {
    errors.iter().any(|error| encoded.span(error.sequence).is_none() && is_refused_as_stale(error))
}

fn is_refused_as_stale(error: &MessageError) -> bool {
    error.source.raw_os_error() == Some(libc::ERESTART)
}

/// Names the operation and element of each error.
fn name(transaction: &Transaction, encoded: &Encoded, errors: Vec<MessageError>) -> CommitError {
    let mut refused = Vec::with_capacity(errors.len());
    for error in errors {
        let Some(span) = encoded.span(error.sequence) else {
            return if is_refused_as_stale(&error) { CommitError::Stale } else { CommitError::Whole(error) };
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
