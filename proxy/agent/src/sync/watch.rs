//! The thread that listens to the kernel for changes that others make.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use portway_dataplane::KernelWatch;

use super::backoff::Backoff;
use crate::inbox::{Caller, Message};

/// Set while a word from the kernel waits in the inbox, so that ten thousand notifications of one `nft flush ruleset`
/// become one message. The loop clears it when it begins to look.
pub(super) type Waiting = Arc<AtomicBool>;

/// Starts the thread. It ends when the loop does, or with the process while it waits for the kernel.
pub fn listen(mut watch: Box<dyn KernelWatch>, caller: Caller, waiting: Arc<AtomicBool>) -> io::Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    let listening = move || {
        loop {
            let word = match watch.wait() {
                Ok(word) => {
                    backoff.succeeded();
                    word
                }
                Err(error) => {
                    // What was missed meanwhile is found by looking.
                    tracing::warn!(%error, "listening to the kernel's notifications failed");
                    thread::sleep(backoff.failed());
                    "notifications were lost".to_owned()
                }
            };
            if !waiting.swap(true, Ordering::AcqRel) && caller.send(Message::KernelChanged(word)).is_err() {
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
                Ok(word) => word,
                Err(_) => loop {
                    thread::park();
                },
            }
        }
    }

    #[test]
    fn many_notifications_are_one_message_until_the_loop_looks() {
        let (words, script) = mpsc::channel();
        let (asked, asks) = mpsc::channel();
        let (sink, inbox) = channel(1, SourceMetrics::default());
        let waiting = Arc::new(AtomicBool::new(false));
        listen(Box::new(Scripted(script, asked)), sink.caller(), Arc::clone(&waiting)).unwrap();

        for n in 0..50 {
            words.send(Ok(format!("word {n}"))).unwrap();
        }
        // The watch asks once more after the last word, so all of them have been dealt with.
        for _ in 0..51 {
            asks.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert!(matches!(inbox.try_next(), Ok(Some(Message::KernelChanged(word))) if word == "word 0"));
        assert!(matches!(inbox.try_next(), Ok(None)));

        waiting.store(false, Ordering::Release);
        let lost = DataplaneError::Answer { what: "watch".to_owned(), detail: "overrun".to_owned() };
        words.send(Err(lost)).unwrap();
        let next = inbox.next(Some(Duration::from_secs(10)));
        assert!(matches!(next, Ok(Some(Message::KernelChanged(word))) if word == "notifications were lost"));
    }
}
