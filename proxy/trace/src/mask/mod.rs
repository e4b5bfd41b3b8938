//! Masking: replaces names and addresses; equal values get equal replacements throughout one trace.
//!
//! The replacements come from a random key that is new for each trace and never stored. Without the key they cannot be
//! reversed, and two traces of one cluster cannot be matched. Masking does not hide the shape of the cluster, the
//! number of objects, ports and other numbers, and the times of changes.

mod address;

use std::net::IpAddr;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use crate::line::{Masked, ObjectName};
use address::Text;

/// Characters of a masked name after its first letter: 70 bits, so that a million names stay distinct, in 15
/// characters, which fit wherever the API takes a name.
const NAME_LENGTH: usize = 14;

/// Replaces names, addresses, both, or neither.
pub struct Masker {
    key: [u8; 32],
    names: bool,
    addresses: bool,
}

impl Masker {
    /// Creates a masker of these values with a new random key.
    ///
    /// # Errors
    /// If the kernel does not provide random numbers.
    pub fn new(masked: &[Masked]) -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self { key, names: masked.contains(&Masked::Names), addresses: masked.contains(&Masked::Addresses) })
    }

    /// The values that this masker replaces.
    pub fn masked(&self) -> Vec<Masked> {
        let all = [(self.names, Masked::Names), (self.addresses, Masked::Addresses)];
        all.into_iter().filter_map(|(is, what)| is.then_some(what)).collect()
    }

    /// Masks a name: the result is a DNS label that starts with a letter. Equal names stay equal and distinct names
    /// stay distinct; their order and common parts are lost. A name that is an address (of a Node, say) is masked as an
    /// address if only addresses are masked.
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

    /// Masks an address: the result is an address of the same family; see [`Masker::range`] for common prefixes. A text
    /// that is not an address is masked as a name.
    pub fn address(&self, text: &str) -> String {
        match Text::address(text) {
            Some(address) if self.addresses => address.masked(&self.key).to_string(),
            Some(_) => text.to_owned(),
            None => self.name(text),
        }
    }

    /// Masks a range of addresses: the result has the same length. Two addresses or ranges with exactly n common
    /// leading bits still have exactly n, so addresses in a range stay in it and others stay out. Unspecified,
    /// loopback, link-local and multicast addresses are not changed, and no other address becomes one; so the first two
    /// to six bits of other addresses are not changed either.
    pub fn range(&self, text: &str) -> String {
        match Text::range(text) {
            Some(range) if self.addresses => range.masked(&self.key).to_string(),
            Some(_) => text.to_owned(),
            None => self.address(text),
        }
    }

    /// Masks the namespace and the name of an object.
    pub fn object(&self, object: ObjectName) -> ObjectName {
        ObjectName { namespace: self.name(&object.namespace), name: self.name(&object.name), ..object }
    }
}
