//! nf_tables: objects, how they travel, how they are printed, and who changes them.

pub mod fake;
mod kernel;
pub mod object;
pub mod text;
pub mod watch;
pub mod wire;

pub use kernel::Kernel;
