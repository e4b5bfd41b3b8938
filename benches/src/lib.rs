//! What the measuring program, the micro benchmarks and the count of allocations share.

pub mod model_cluster;
