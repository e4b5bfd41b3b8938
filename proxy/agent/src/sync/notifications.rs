//! The thread that listens for changes that other programs make to the kernel's rules.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use portway_dataplane::{ForeignChange, KernelWatch};
use portway_model::Family;

use super::pending::index;
use crate::backoff::Backoff;
use crate::inbox::{Message, MessageSender};

/// The wait after listening first fails, and the longest wait.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// How many notifications that name all they are about wait in the inbox at most.
const MAX_WAITING: u32 = 64;

/// Which notifications wait in the inbox, so that the ten thousand notifications of one `nft flush ruleset` become one
/// message. The loop clears it when it starts to read the kernel back.
#[derive(Debug, Default)]
pub struct Notified(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Whether one waits that names no family.
    any: bool,
    /// How many wait that name each family; see [`index`].
    named: [u32; 2],
    /// Whether there were more for each family than those that wait.
    more: [bool; 2],
}

impl Notified {
    /// Notes a notification. Returns whether it is to be sent, because it says more than those that wait already: that
    /// others have changed a family is more than that they may have.
    fn note(&self, change: &ForeignChange) -> bool {
        let mut waiting = self.waiting();
        let Waiting { any, named, more } = &mut *waiting;
        if change.families.is_empty() {
            let is_new = !*any && *named == [0, 0];
            *any = true;
            *more = [true, true];
            return is_new;
        }
        let max = if change.objects.is_some() { MAX_WAITING } else { 1 };
        let families = || change.families.iter().map(|family| index(*family));
        if families().all(|family| named[family] >= max) {
            families().for_each(|family| more[family] = true);
            return false;
        }
        families().for_each(|family| named[family] += 1);
        true
    }

    /// Forgets what this family is about to be read back for. Returns whether there were notifications that were not sent.
    pub(super) fn clear(&self, family: Family) -> bool {
        let mut waiting = self.waiting();
        waiting.any = false;
        waiting.named[index(family)] = 0;
        std::mem::take(&mut waiting.more[index(family)])
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
                    ForeignChange {
                        description: "notifications were lost".to_owned(),
                        families: Vec::new(),
                        objects: None,
                    }
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
        Ok(ForeignChange { description, families: families.to_vec(), objects: None })
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

        Family::ALL.into_iter().for_each(|family| _ = notified.clear(family));
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
        notified.clear(Family::V6);
        assert!(!note(&[Family::V4]) && note(&[Family::V6]));
        Family::ALL.into_iter().for_each(|family| _ = notified.clear(family));
        assert!(note(&[]) && note(&[Family::V4]));
    }

    #[test]
    fn nft_20_notifications_that_name_their_objects_are_sent_one_by_one_up_to_a_number() {
        let notified = Notified::default();
        let named = ForeignChange { description: String::new(), families: vec![Family::V4], objects: Some(Vec::new()) };
        assert!((0..MAX_WAITING).all(|_| notified.note(&named)));
        assert!(!notified.clear(Family::V4), "all were sent");
        assert!((0..MAX_WAITING).all(|_| notified.note(&named)) && !notified.note(&named));
        assert!(notified.clear(Family::V4), "one was not");
        assert!(notified.note(&named) && !notified.note(&ForeignChange { families: Vec::new(), ..named.clone() }));
        assert!(notified.clear(Family::V4), "what was missed may be anything");
    }
}
