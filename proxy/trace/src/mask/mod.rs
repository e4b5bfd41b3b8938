//! Masking: names and addresses are replaced by others, the same by the same throughout one trace.
//!
//! The replacements come from a key that is drawn anew for each trace and never written: without it nothing leads back,
//! and two traces of one cluster cannot be laid side by side. What masking does not hide: the shape of the cluster, how
//! many of what there are, ports and other numbers, and when things changed.

mod address;

use std::net::IpAddr;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use crate::line::{Masked, ObjectName};
use address::Text;

/// Letters and digits of a masked name after its first letter: 70 bits, so that a million names stay distinct, in a
/// text of 15, so that it fits wherever the API takes a name.
const NAME_LENGTH: usize = 14;

/// Replaces names and addresses, or leaves them.
pub struct Masker {
    key: [u8; 32],
    names: bool,
    addresses: bool,
}

impl Masker {
    /// Masks these, with a new key.
    ///
    /// # Errors
    /// If the kernel has no random numbers.
    pub fn new(masked: &[Masked]) -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self { key, names: masked.contains(&Masked::Names), addresses: masked.contains(&Masked::Addresses) })
    }

    /// The kinds of values that it masks.
    pub fn masked(&self) -> Vec<Masked> {
        let all = [(self.names, Masked::Names), (self.addresses, Masked::Addresses)];
        all.into_iter().filter_map(|(is, what)| is.then_some(what)).collect()
    }

    /// A name: a DNS label that begins with a letter. Equal names become equal, distinct ones distinct; their order
    /// and what they have in common is lost. A name that is an address (of a Node, say) counts as one where addresses
    /// alone are masked.
    pub fn name(&self, name: &str) -> String {
        if !self.names {
            return match name.parse::<IpAddr>() {
                Ok(_) if self.addresses => self.address(name),
                _ => name.to_owned(),
            };
        }
        if name.is_empty() {
            return String::new();
        }
        let hash = Sha256::new().chain_update(self.key).chain_update("name").chain_update(name).finalize();
        format!("n{}", BASE32_NOPAD.encode(&hash[..9])[..NAME_LENGTH].to_ascii_lowercase())
    }

    /// An address: another one of the same family; see [`Masker::range`] for what two addresses keep of each other. What
    /// is no address counts as a name.
    pub fn address(&self, text: &str) -> String {
        match Text::address(text) {
            Some(address) if self.addresses => address.masked(&self.key).to_string(),
            Some(_) => text.to_owned(),
            None => self.name(text),
        }
    }

    /// A range of addresses: another one of the same length. Two addresses, or ranges, that have their first n bits in
    /// common still have exactly so many: what was in a range stays in it, what was not stays out. Unspecified,
    /// loopback, link-local and multicast addresses stay what they are, and nothing else becomes one; so the first two to
    /// six bits of other addresses stay too.
    pub fn range(&self, text: &str) -> String {
        match Text::range(text) {
            Some(range) if self.addresses => range.masked(&self.key).to_string(),
            Some(_) => text.to_owned(),
            None => self.address(text),
        }
    }

    /// The name of an object.
    pub fn object(&self, object: ObjectName) -> ObjectName {
        ObjectName { namespace: self.name(&object.namespace), name: self.name(&object.name), ..object }
    }
}
