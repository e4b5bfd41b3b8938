//! Clients: how long connections take, and how much goes through them in a given time. All from the calling thread's
//! namespace.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::loopback::connect;

/// After which silence is a failure.
const PATIENCE: Duration = Duration::from_secs(2);

/// Threads that open connections at the same time.
const THREADS: usize = 2;

/// Microseconds that each of `count` connections takes to open, to these addresses by chance.
pub(super) fn connects(to: &[SocketAddr], count: usize) -> io::Result<Vec<f64>> {
    (0..count).map(|_| Ok(connect(to[fastrand::usize(..to.len())], None)?.as_secs_f64() * 1e6)).collect()
}

/// Connections that are opened and closed in a second, by two clients at once.
pub(super) fn connection_rate(to: &[SocketAddr], during: Duration) -> io::Result<f64> {
    let count = AtomicU64::new(0);
    let start = Instant::now();
    let one = || -> io::Result<()> {
        while start.elapsed() < during {
            connect(to[fastrand::usize(..to.len())], None)?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

/// Requests of a byte, each answered before the next, in a second, over one connection. Client and server share a processor:
/// where the scheduler puts them otherwise makes more of a difference than all rules together.
pub(super) fn request_rate(to: &[SocketAddr], during: Duration) -> io::Result<f64> {
    stay_on_one_processor();
    let mut stream = open(to)?;
    let mut byte = [7];
    let (mut count, start) = (0_u64, Instant::now());
    while start.elapsed() < during {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        count += 1;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Mebibits that arrive in a second, over one connection.
pub(super) fn throughput(to: &[SocketAddr], during: Duration) -> io::Result<f64> {
    let mut stream = open(to)?;
    let block = vec![7; 128 << 10];
    let start = Instant::now();
    let mut sent = 0_u64;
    while start.elapsed() < during {
        stream.write_all(&block)?;
        sent += block.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    // Only what has arrived counts, and the time that it took to arrive.
    let mut arrived = [0; 8];
    stream.read_exact(&mut arrived)?;
    let took = start.elapsed().as_secs_f64();
    if u64::from_be_bytes(arrived) != sent {
        return Err(io::Error::other(format!("{} of {sent} bytes arrived", u64::from_be_bytes(arrived))));
    }
    Ok(sent as f64 * 8.0 / f64::from(1 << 20) / took)
}

/// Keeps the calling thread on the first processor that it may use.
pub(super) fn stay_on_one_processor() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let mut one = CpuSet::new();
    if let Some(first) = (0..CpuSet::MAX_CPU).find(|processor| allowed.is_set(*processor)) {
        one.set(first);
        // Where that is forbidden, figures scatter more.
        let _ = sched_setaffinity(None, &one);
    }
}

/// A connection that ends in a reset.
fn open(to: &[SocketAddr]) -> io::Result<TcpStream> {
    let to = to[fastrand::usize(..to.len())];
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
