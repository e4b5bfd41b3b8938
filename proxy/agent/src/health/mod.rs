//! Health: whether the kernel follows the cluster (`/healthz`, `/livez`), and which Services have endpoints on this node
//! (health check node ports). Contract sections 12 and 13.
//!
//! The sync loop says what waits and what it has written; it never waits itself. The servers run beside it and read the
//! clock themselves, so that a loop that hangs is unhealthy too.

mod checks;
mod listeners;
mod proxy;
mod server;
#[cfg(test)]
mod tests;

pub use checks::{ServiceChecks, Update};
pub use proxy::ProxyHealth;

pub(crate) use checks::Updates;
pub(crate) use listeners::listen;
pub(crate) use server::handler;
