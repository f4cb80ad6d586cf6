//! The thread that reads `/proc`: which processes belong to a run.
//!
//! A scan takes milliseconds with some hundred processes, and a crash of many
//! apps at once asks for as many. So it is no work for the loop, and whoever
//! asks while a scan is under way shares the next one. It signals nobody.

use musher_os::kill::{Census, Lineage, Member};
use std::collections::HashSet;
use std::io;
use std::sync::mpsc;
use tokio::sync::oneshot;

/// Asks the thread; it ends with the last of them.
#[derive(Clone)]
pub(crate) struct Scout {
    // Bounded by the ends under way: each waits for its answer.
    asks: mpsc::Sender<Ask>,
}

struct Ask {
    lineage: Lineage,
    known: HashSet<Member>,
    answer: oneshot::Sender<io::Result<Vec<Member>>>,
}

impl Scout {
    /// Starts the thread.
    ///
    /// # Errors
    /// `EAGAIN`: the system has no thread left.
    pub(crate) fn start() -> io::Result<Scout> {
        let (asks, inbox) = mpsc::channel();
        std::thread::Builder::new()
            .name("scout".to_owned())
            .spawn(move || serve(&inbox))?;
        Ok(Scout { asks })
    }

    /// Returns what lives of a run, deepest first and the main process last.
    ///
    /// # Errors
    /// `EMFILE`, or the thread is gone.
    pub(crate) async fn look(
        &self,
        lineage: &Lineage,
        known: &HashSet<Member>,
    ) -> io::Result<Vec<Member>> {
        let (answer, found) = oneshot::channel();
        let ask = Ask {
            lineage: lineage.clone(),
            known: known.clone(),
            answer,
        };
        let gone = || io::Error::other("the thread that reads /proc is gone");
        self.asks.send(ask).map_err(|_| gone())?;
        found.await.map_err(|_| gone())?
    }
}

fn serve(inbox: &mpsc::Receiver<Ask>) {
    while let Ok(first) = inbox.recv() {
        let asks = std::iter::once(first).chain(inbox.try_iter());
        // Collected before the scan: a later question is about later facts.
        let asks: Vec<Ask> = asks.collect();
        let census = Census::take();
        for ask in asks {
            let found = match &census {
                Ok(census) => Ok(census.of(&ask.lineage, &ask.known)),
                Err(error) => Err(copy(error)),
            };
            // Who asked may have gone with its run.
            let _ = ask.answer.send(found);
        }
    }
}

fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => error.kind().into(),
    }
}
