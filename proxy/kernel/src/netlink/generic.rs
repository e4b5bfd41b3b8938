//! Generic netlink's families (`linux/genetlink.h`): resolves a name such as "IPVS" into the numbers that its messages
//! and notifications are sent with.
//!
//! The kernel hands out the numbers when a family registers, so they differ from one machine to the next. This module
//! knows the controlling family "nlctrl" alone; commands and attributes of other families belong to their own modules.

use super::{Message, NetlinkError, Socket, genlmsghdr};

/// `GENL_ID_CTRL`, the fixed id of the controlling family.
const CONTROL: u16 = 0x10;
/// The kernel's number `CTRL_CMD_GETFAMILY`.
const GET_FAMILY: u8 = 3;
/// Version of the controlling family's messages.
const CONTROL_VERSION: u8 = 2;

/// Attributes of the controlling family, `CTRL_ATTR_*`.
mod attribute {
    pub(super) const FAMILY_ID: u16 = 1;
    pub(super) const FAMILY_NAME: u16 = 2;
    pub(super) const VERSION: u16 = 3;
    pub(super) const GROUPS: u16 = 7;
    pub(super) const GROUP_NAME: u16 = 1;
    pub(super) const GROUP_ID: u16 = 2;
}

/// A generic netlink family as the running kernel has registered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenericFamily {
    /// The message type of the family's messages, for [`super::Batch::message`] and [`Socket::request`].
    pub id: u16,
    /// The family's version, for [`genlmsghdr`].
    pub version: u8,
    /// The family's multicast groups by name, with the numbers that [`Socket::subscribe`] takes.
    pub groups: Vec<(String, u32)>,
}

impl GenericFamily {
    /// The number of the multicast group of this name, if the family has one.
    pub fn group(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|(group, _)| group == name).map(|(_, id)| *id)
    }
}

/// Asks the kernel for the family of this name; `None` if it has none, for example because its module is not loaded and
/// cannot be. `socket` is one of [`super::NetlinkFamily::Generic`]. Asking needs no privileges.
///
/// # Errors
/// If the kernel refuses otherwise, or its answer names no id.
pub fn resolve(socket: &mut Socket, name: &str) -> Result<Option<GenericFamily>, NetlinkError> {
    let header = genlmsghdr(GET_FAMILY, CONTROL_VERSION);
    match socket.request(CONTROL, 0, header, |out| out.string(attribute::FAMILY_NAME, name), read) {
        Ok(mut found) => found.pop().map(Some).ok_or(NetlinkError::Malformed),
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(message: &Message<'_>) -> Option<GenericFamily> {
    let all = message.attributes();
    let groups = all.find(attribute::GROUPS).into_iter().flat_map(|groups| groups.nested()).filter_map(|group| {
        let group = group.nested();
        Some((group.find(attribute::GROUP_NAME)?.string()?.to_owned(), group.find(attribute::GROUP_ID)?.ne32()?))
    });
    Some(GenericFamily {
        id: all.find(attribute::FAMILY_ID)?.ne16()?,
        version: u8::try_from(all.find(attribute::VERSION)?.ne32()?).ok()?,
        groups: groups.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::NetlinkFamily;
    use proptest::prelude::*;

    #[test]
    fn the_controlling_family_resolves_to_its_fixed_numbers() {
        let mut socket = Socket::open(NetlinkFamily::Generic).expect("a generic netlink socket");
        let control = resolve(&mut socket, "nlctrl").expect("an answer").expect("every kernel has it");
        assert_eq!((control.id, control.version), (CONTROL, CONTROL_VERSION));
        // GENL_ID_CTRL is also the number of its one group.
        assert_eq!(control.groups, [("notify".to_owned(), u32::from(CONTROL))]);
        assert_eq!((control.group("notify"), control.group("other")), (Some(u32::from(CONTROL)), None));
    }

    #[test]
    fn a_family_that_the_kernel_does_not_have_is_none() {
        let mut socket = Socket::open(NetlinkFamily::Generic).expect("a generic netlink socket");
        assert_eq!(resolve(&mut socket, "no-such-fam").expect("an answer"), None);
        // The socket stays usable after a refusal.
        assert!(resolve(&mut socket, "nlctrl").expect("an answer").is_some());
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        let mut socket = Socket::open(NetlinkFamily::Generic).expect("a generic netlink socket");
        let error = resolve(&mut socket, "longer-than-fifteen-bytes").expect_err("GENL_NAMSIZ is 16");
        assert!(error.errno().is_some(), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&Message { kind: CONTROL, flags: 0, sequence: 0, port: 0, payload: &payload });
        }
    }
}
