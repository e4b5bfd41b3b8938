//! The thread that listens for changes that other programs make to the kernel's rules.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use portway_dataplane::{ForeignChange, KernelWatch};
use portway_model::Family;

use super::pending::index;
use crate::backoff::Backoff;
use crate::inbox::{Message, MessageSender};

/// The wait after listening first fails, and the longest wait.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Which notifications wait in the inbox, so that the ten thousand notifications of one `nft flush ruleset` become one
/// message. The loop clears it when it starts to read the kernel back.
#[derive(Debug, Default)]
pub struct Notified(AtomicU8);

impl Notified {
    /// Set by notifications that name no family.
    const ANY: u8 = 1;

    fn of(family: Family) -> u8 {
        2 << index(family)
    }

    /// Notes a notification. Returns whether it says more than those that wait already: that others have changed a family
    /// is more than that they may have.
    fn note(&self, change: &ForeignChange) -> bool {
        let families = change.families.iter().fold(0, |all, family| all | Self::of(*family));
        let all = if families == 0 { Self::ANY } else { families };
        let before = self.0.fetch_or(all, Ordering::AcqRel);
        if families == 0 { before == 0 } else { before & all != all }
    }

    /// Forgets what these families are about to be read back for.
    pub(super) fn clear(&self, families: &[Family]) {
        let read = families.iter().fold(Self::ANY, |all, family| all | Self::of(*family));
        self.0.fetch_and(!read, Ordering::AcqRel);
    }
}

/// Starts the thread. It ends with the sync loop, or with the process while it waits for the kernel.
pub fn listen(mut watch: Box<dyn KernelWatch>, sender: MessageSender, notified: Arc<Notified>) -> io::Result<()> {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let listening = move || {
        loop {
            let change = match watch.wait() {
                Ok(change) => {
                    backoff.succeeded();
                    change
                }
                Err(error) => {
                    // The audit finds the changes whose notifications were lost.
                    tracing::warn!(%error, "listening to the kernel's notifications failed; auditing instead");
                    thread::sleep(backoff.failed());
                    ForeignChange { description: "notifications were lost".to_owned(), families: Vec::new() }
                }
            };
            if notified.note(&change) && sender.send(Message::KernelChanged(change)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("kernel-watch".to_owned()).spawn(listening).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::channel;
    use crate::metrics::SourceMetrics;
    use portway_dataplane::DataplaneError;
    use std::sync::mpsc;

    struct Scripted(mpsc::Receiver<Result<ForeignChange, DataplaneError>>, mpsc::Sender<()>);

    impl KernelWatch for Scripted {
        fn wait(&mut self) -> Result<ForeignChange, DataplaneError> {
            let _ = self.1.send(());
            match self.0.recv() {
                Ok(notification) => notification,
                Err(_) => loop {
                    thread::park();
                },
            }
        }
    }

    fn change(description: String, families: &[Family]) -> Result<ForeignChange, DataplaneError> {
        Ok(ForeignChange { description, families: families.to_vec() })
    }

    #[test]
    fn many_notifications_are_one_message_until_the_loop_reads_the_kernel_back() {
        let (notifications, script) = mpsc::channel();
        let (waited, waits) = mpsc::channel();
        let (sink, inbox) = channel(1, SourceMetrics::default());
        let notified = Arc::new(Notified::default());
        listen(Box::new(Scripted(script, waited)), sink.sender(), Arc::clone(&notified)).unwrap();

        for n in 0..50 {
            notifications.send(change(format!("notification {n}"), &[Family::V4])).unwrap();
        }
        // The thread waits once more after the last notification, so it has handled all of them.
        for _ in 0..51 {
            waits.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        let next = |description: &str| {
            let message = inbox.next(Some(Duration::from_secs(10)));
            let is_it =
                matches!(&message, Ok(Some(Message::KernelChanged(change))) if change.description == description);
            assert!(is_it, "{message:?}");
        };
        next("notification 0");
        assert!(matches!(inbox.try_next(), Ok(None)));

        notified.clear(&Family::ALL);
        let lost = DataplaneError::Answer { what: "watch".to_owned(), detail: "overrun".to_owned() };
        notifications.send(Err(lost)).unwrap();
        next("notifications were lost");
    }

    #[test]
    fn nft_20_a_change_that_is_known_is_not_taken_for_one_that_may_be() {
        let notified = Notified::default();
        let note = |families: &[Family]| notified.note(&change(String::new(), families).unwrap());
        assert!(note(&[]) && !note(&[]));
        assert!(note(&[Family::V4]) && !note(&[Family::V4]) && !note(&[]));
        assert!(note(&[Family::V4, Family::V6]) && !note(&[Family::V6]));
        notified.clear(&[Family::V6]);
        assert!(!note(&[Family::V4]) && note(&[Family::V6]));
        notified.clear(&Family::ALL);
        assert!(note(&[]) && note(&[Family::V4]));
    }
}
