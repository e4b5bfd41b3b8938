//! The contract's behaviours, each proven by the tests whose names begin with its ID.

mod affinity;
mod changes;
mod claims;
mod conntrack;
mod endpoints;
mod inspect;
mod masquerade;
mod no_endpoints;
mod nodeport;
mod properties;
mod route_sources;
mod services;
mod topology;
mod watch;
