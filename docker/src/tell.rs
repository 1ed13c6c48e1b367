//! Tells facts to whoever listens at the moment.

use slotmux_backend::{Fact, Facts};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// Facts that may wait for their reader before those who tell them wait too.
const UNREAD_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Teller {
    listener: Mutex<Option<mpsc::Sender<Fact>>>,
}

impl Teller {
    pub(crate) fn subscribe(&self) -> Facts {
        let (sender, receiver) = mpsc::channel(UNREAD_MAX);
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    pub(crate) fn close(&self) {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(crate) async fn tell(&self, fact: Fact) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(listener) = listener {
            // A listener that went away wants no facts.
            let _ = listener.send(fact).await;
        }
    }
}
