//! The thread that listens for changes that other programs make to the kernel's rules.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use portway_dataplane::KernelWatch;

use crate::backoff::Backoff;
use crate::inbox::{Message, MessageSender};

/// The wait after listening first fails, and the longest wait.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Starts the thread. It ends with the sync loop, or with the process while it waits for the kernel.
///
/// `notified` is set while a notification waits in the inbox, so that the ten thousand notifications of one
/// `nft flush ruleset` become one message. The loop clears it when it starts to read the kernel back.
pub fn listen(mut watch: Box<dyn KernelWatch>, sender: MessageSender, notified: Arc<AtomicBool>) -> io::Result<()> {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let listening = move || {
        loop {
            let notification = match watch.wait() {
                Ok(notification) => {
                    backoff.succeeded();
                    notification
                }
                Err(error) => {
                    // The audit finds the changes whose notifications were lost.
                    tracing::warn!(%error, "listening to the kernel's notifications failed; auditing instead");
                    thread::sleep(backoff.failed());
                    "notifications were lost".to_owned()
                }
            };
            if !notified.swap(true, Ordering::AcqRel) && sender.send(Message::KernelChanged(notification)).is_err() {
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

    struct Scripted(mpsc::Receiver<Result<String, DataplaneError>>, mpsc::Sender<()>);

    impl KernelWatch for Scripted {
        fn wait(&mut self) -> Result<String, DataplaneError> {
            let _ = self.1.send(());
            match self.0.recv() {
                Ok(notification) => notification,
                Err(_) => loop {
                    thread::park();
                },
            }
        }
    }

    #[test]
    fn many_notifications_are_one_message_until_the_loop_reads_the_kernel_back() {
        let (notifications, script) = mpsc::channel();
        let (waited, waits) = mpsc::channel();
        let (sink, inbox) = channel(1, SourceMetrics::default());
        let notified = Arc::new(AtomicBool::new(false));
        listen(Box::new(Scripted(script, waited)), sink.sender(), Arc::clone(&notified)).unwrap();

        for n in 0..50 {
            notifications.send(Ok(format!("notification {n}"))).unwrap();
        }
        // The thread waits once more after the last notification, so it has handled all of them.
        for _ in 0..51 {
            waits.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert!(matches!(inbox.try_next(), Ok(Some(Message::KernelChanged(text))) if text == "notification 0"));
        assert!(matches!(inbox.try_next(), Ok(None)));

        notified.store(false, Ordering::Release);
        let lost = DataplaneError::Answer { what: "watch".to_owned(), detail: "overrun".to_owned() };
        notifications.send(Err(lost)).unwrap();
        let next = inbox.next(Some(Duration::from_secs(10)));
        assert!(matches!(next, Ok(Some(Message::KernelChanged(text))) if text == "notifications were lost"));
    }
}
