//! Counts the connections, bytes and watch events of the server, and freezes connections on demand.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The traffic that the server has sent to its clients: HTTP headers count, TCP and IP headers do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Number of bytes that the server wrote to all connections.
    pub bytes: u64,
    /// Number of watch events that the server sent: initial ones count, bookmarks do not.
    pub events: u64,
    /// Number of connections that the server accepted.
    pub connections: u64,
    /// Number of connections that the server reset at once, because it was told to refuse them.
    pub refused: u64,
    /// Number of connections that are open now.
    pub open: u64,
}

/// Counters that all connections share.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    bytes: AtomicU64,
    events: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
    open: AtomicU64,
    freeze: Mutex<Freeze>,
}

/// Whether connections are frozen, and who waits for the end of it.
#[derive(Debug, Default)]
struct Freeze {
    on: bool,
    waiting: Vec<Waker>,
}

impl Traffic {
    pub(crate) fn count_event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Carried {
        Carried {
            bytes: self.bytes.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            open: self.open.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Freezes all connections, or lets them go on.
    pub(crate) fn freeze(&self, on: bool) {
        let mut freeze = self.frozen();
        freeze.on = on;
        if !on {
            freeze.waiting.drain(..).for_each(Waker::wake);
        }
    }

    /// Ready unless connections are frozen; wakes the task when they no longer are.
    fn thawed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut freeze = self.frozen();
        if !freeze.on {
            return Poll::Ready(());
        }
        if !freeze.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            freeze.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn frozen(&self) -> MutexGuard<'_, Freeze> {
        self.freeze.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_bytes(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.bytes.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

/// A connection that is counted, with the bytes written to it.
pub(crate) struct Counted<S> {
    inner: S,
    traffic: Arc<Traffic>,
}

impl<S> Counted<S> {
    pub(crate) fn new(inner: S, traffic: Arc<Traffic>) -> Self {
        traffic.connections.fetch_add(1, Ordering::Relaxed);
        traffic.open.fetch_add(1, Ordering::Relaxed);
        Self { inner, traffic }
    }
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        self.traffic.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.traffic.thawed(cx));
        Pin::new(&mut this.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.traffic.thawed(cx));
        let written = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.traffic.count_bytes(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.traffic.thawed(cx));
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
        this.traffic.count_bytes(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
