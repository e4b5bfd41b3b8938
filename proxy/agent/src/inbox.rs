//! The way into the sync loop: one queue of messages, bounded for sources, always open for signals.
//!
//! Sources are asynchronous and fast, the loop is a thread that now and then waits for the kernel. So a source waits
//! for room before it sends an [`Event`]; what must never wait (a signal, a word from the kernel) needs no room.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

use portway_model::{Event, Kind};
use tokio::sync::Semaphore;

use crate::metrics::SourceMetrics;

/// Events that may wait in the queue. Each holds one API object, so this bounds what a slow kernel can pile up.
pub const EVENT_ROOM: usize = 1024;

/// What the sync loop hears.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all messages are events: boxing them would only cost")]
pub enum Message {
    /// News from a source.
    Event(Event),
    /// Somebody else changed this dataplane's part of the kernel, in the kernel's words.
    KernelChanged(String),
    /// End now and leave the kernel as it is.
    Stop,
}

/// The loop is gone; nobody listens any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sync loop has ended")]
pub struct InboxClosed;

/// Makes the queue, with room for `room` events.
pub fn channel(room: usize, metrics: SourceMetrics) -> (EventSink, Inbox) {
    let (sender, receiver) = mpsc::channel();
    let room = Arc::new(Semaphore::new(room));
    let sink = EventSink { sender, room: Arc::clone(&room), metrics: metrics.clone() };
    (sink, Inbox { receiver, room, metrics })
}

/// Where sources send what they see. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventSink {
    sender: Sender<Message>,
    room: Arc<Semaphore>,
    metrics: SourceMetrics,
}

impl EventSink {
    /// Waits for room and sends. An error means that the agent is ending: the source ends too.
    pub async fn send(&self, event: Event) -> Result<(), InboxClosed> {
        let permit = self.room.acquire().await.map_err(|_| InboxClosed)?;
        // Given back by the inbox when the event is taken out.
        permit.forget();
        self.metrics.queued(&event);
        self.sender.send(Message::Event(event)).map_err(|_| InboxClosed)
    }

    /// Counts a list or watch of this kind that broke off and is begun anew.
    pub fn interrupted(&self, kind: Kind) {
        self.metrics.interrupted(kind);
    }

    /// A handle for messages that need no room.
    pub fn caller(&self) -> Caller {
        Caller { sender: self.sender.clone() }
    }
}

/// Sends messages that never wait for room.
#[derive(Clone, Debug)]
pub struct Caller {
    sender: Sender<Message>,
}

impl Caller {
    /// Puts a message into the queue.
    pub fn send(&self, message: Message) -> Result<(), InboxClosed> {
        self.sender.send(message).map_err(|_| InboxClosed)
    }
}

/// The loop's end of the queue.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Message>,
    room: Arc<Semaphore>,
    metrics: SourceMetrics,
}

impl Inbox {
    /// The next message, if one is there now.
    pub fn try_next(&self) -> Result<Option<Message>, InboxClosed> {
        match self.receiver.try_recv() {
            Ok(message) => Ok(Some(self.taken(message))),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(InboxClosed),
        }
    }

    /// The next message; `None` after `patience` without one, which may be endless.
    pub fn next(&self, patience: Option<Duration>) -> Result<Option<Message>, InboxClosed> {
        let received = match patience {
            Some(patience) => self.receiver.recv_timeout(patience),
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(message) => Ok(Some(self.taken(message))),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(InboxClosed),
        }
    }

    fn taken(&self, message: Message) -> Message {
        if matches!(message, Message::Event(_)) {
            self.room.add_permits(1);
            self.metrics.taken();
        }
        message
    }
}

impl Drop for Inbox {
    /// Wakes sources that wait for room, so that they learn that nobody listens.
    fn drop(&mut self) {
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_source_waits_for_room_and_a_signal_does_not() {
        let (sink, inbox) = channel(1, SourceMetrics::default());
        sink.send(Event::ListDone(Kind::Service)).await.unwrap();
        let full = tokio::time::timeout(Duration::from_millis(20), sink.send(Event::ListDone(Kind::Service))).await;
        assert!(full.is_err(), "a second event found room in a queue of one");
        sink.caller().send(Message::Stop).unwrap();

        assert!(matches!(inbox.try_next(), Ok(Some(Message::Event(_)))));
        sink.send(Event::ListDone(Kind::EndpointSlice)).await.unwrap();
        assert!(matches!(inbox.try_next(), Ok(Some(Message::Stop))));
        assert!(matches!(inbox.next(Some(Duration::ZERO)), Ok(Some(Message::Event(_)))));
        assert!(matches!(inbox.try_next(), Ok(None)));
    }

    #[tokio::test]
    async fn a_source_that_waits_for_room_learns_that_the_loop_has_ended() {
        let (sink, inbox) = channel(1, SourceMetrics::default());
        sink.send(Event::ListDone(Kind::Service)).await.unwrap();
        let waiting = tokio::spawn(async move { sink.send(Event::ListDone(Kind::Service)).await });
        tokio::task::yield_now().await;
        drop(inbox);
        assert_eq!(waiting.await.unwrap(), Err(InboxClosed));
    }
}
