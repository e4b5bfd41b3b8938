//! Brings one family's table to the desired state.
//!
//! Two ways lead to the kernel. [`staged`] works out a Change on top of what is [`installed`] and costs only what the
//! Change touches. [`steps`] lists the kernel, adopts what is right and writes what differs; it needs to know nothing,
//! and follows after anything unexpected.

pub(crate) mod audit;
pub(crate) mod diff;
pub(crate) mod garbage;
pub(crate) mod installed;
pub(crate) mod named;
pub(crate) mod observed;
pub(crate) mod refusal;
pub(crate) mod staged;
pub(crate) mod steps;
pub(crate) mod writes;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
