//! The sync loop's inbox: one queue of messages, bounded for events, unbounded for signals.
//!
//! Sources are asynchronous and fast, while the loop is a thread that sometimes waits for the kernel. So a source waits
//! for room before it sends an [`Event`]; signals and kernel notifications must never wait and need no room.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

use portway_dataplane::ForeignChange;
use portway_model::{Event, Kind};
use tokio::sync::Semaphore;

use crate::metrics::SourceMetrics;

/// The most events that wait in the queue. Each holds one API object, so this bounds the memory that a slow kernel
/// costs.
pub const MAX_EVENTS: usize = 1024;

/// A message to the sync loop.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all messages are events: boxing them would only cost")]
pub enum Message {
    /// A change of one object, from a source.
    Event(Event),
    /// Another program changed this dataplane's part of the kernel, or may have.
    KernelChanged(ForeignChange),
    /// Ends the loop; the kernel's rules stay in place.
    Stop,
}

/// The sync loop has ended, so nothing receives messages any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sync loop has ended")]
pub struct InboxClosed;

/// Creates a queue with room for `room` events.
pub fn channel(room: usize, metrics: SourceMetrics) -> (EventSink, Inbox) {
    let (sender, receiver) = mpsc::channel();
    let room = Arc::new(Semaphore::new(room));
    let sink = EventSink { sender, room: Arc::clone(&room), metrics: metrics.clone() };
    (sink, Inbox { receiver, room, metrics })
}

/// The end of the queue that sources send events to. Clones share one queue.
#[derive(Clone, Debug)]
pub struct EventSink {
    sender: Sender<Message>,
    room: Arc<Semaphore>,
    metrics: SourceMetrics,
}

impl EventSink {
    /// Waits for room and sends an event.
    ///
    /// # Errors
    /// If the sync loop has ended; the source should end too.
    pub async fn send(&self, event: Event) -> Result<(), InboxClosed> {
        let permit = self.room.acquire().await.map_err(|_| InboxClosed)?;
        // Given back by the inbox when the event is taken out.
        permit.forget();
        self.metrics.queued(&event);
        self.sender.send(Message::Event(event)).map_err(|_| InboxClosed)
    }

    /// Counts a list of all objects of this kind that began.
    pub fn listed(&self, kind: Kind) {
        self.metrics.listed(kind);
    }

    /// Counts a list or watch of this kind that broke off and is restarted.
    pub fn interrupted(&self, kind: Kind) {
        self.metrics.interrupted(kind);
    }

    /// Sets how many files and objects the source cannot use at the moment.
    pub fn unreadable(&self, files: usize, objects: usize) {
        self.metrics.unreadable(files, objects);
    }

    /// Whether the agent is ending.
    pub fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    /// A handle for messages that need no room.
    pub fn sender(&self) -> MessageSender {
        MessageSender { sender: self.sender.clone() }
    }
}

/// The end of the queue for messages that never wait for room. Clones share one queue.
#[derive(Clone, Debug)]
pub struct MessageSender {
    sender: Sender<Message>,
}

impl MessageSender {
    /// Puts a message into the queue.
    ///
    /// # Errors
    /// If the sync loop has ended.
    pub fn send(&self, message: Message) -> Result<(), InboxClosed> {
        self.sender.send(message).map_err(|_| InboxClosed)
    }
}

/// The end of the queue that the sync loop receives from.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Message>,
    room: Arc<Semaphore>,
    metrics: SourceMetrics,
}

impl Inbox {
    /// Returns the next message, or `None` if the queue is empty.
    ///
    /// # Errors
    /// If all senders are gone.
    pub fn try_next(&self) -> Result<Option<Message>, InboxClosed> {
        match self.receiver.try_recv() {
            Ok(message) => Ok(Some(self.taken(message))),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(InboxClosed),
        }
    }

    /// Waits for the next message; returns `None` if none comes within `timeout`. Without a timeout it waits forever.
    ///
    /// # Errors
    /// If all senders are gone.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Message>, InboxClosed> {
        let received = match timeout {
            Some(timeout) => self.receiver.recv_timeout(timeout),
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
    /// Wakes sources that wait for room, so that they see that the loop has ended.
    fn drop(&mut self) {
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_event_waits_for_room_and_a_signal_does_not() {
        let (sink, inbox) = channel(1, SourceMetrics::default());
        sink.send(Event::ListDone(Kind::Service)).await.unwrap();
        let full = tokio::time::timeout(Duration::from_millis(20), sink.send(Event::ListDone(Kind::Service))).await;
        assert!(full.is_err(), "a second event found room in a queue of one");
        sink.sender().send(Message::Stop).unwrap();

        assert!(matches!(inbox.try_next(), Ok(Some(Message::Event(_)))));
        sink.send(Event::ListDone(Kind::EndpointSlice)).await.unwrap();
        assert!(matches!(inbox.try_next(), Ok(Some(Message::Stop))));
        assert!(matches!(inbox.next(Some(Duration::ZERO)), Ok(Some(Message::Event(_)))));
        assert!(matches!(inbox.try_next(), Ok(None)));
    }

    #[tokio::test]
    async fn an_event_that_waits_for_room_fails_when_the_loop_ends() {
        let (sink, inbox) = channel(1, SourceMetrics::default());
        sink.send(Event::ListDone(Kind::Service)).await.unwrap();
        let waiting = tokio::spawn(async move { sink.send(Event::ListDone(Kind::Service)).await });
        tokio::task::yield_now().await;
        drop(inbox);
        assert_eq!(waiting.await.unwrap(), Err(InboxClosed));
    }
}
