//! Tells facts to whoever listens at the moment.

use crate::{Fact, Facts};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// Facts that may wait for their reader before those who tell them wait too.
const UNREAD_MAX: usize = 1_024;

/// One listener at a time: a new one takes the place of the one before.
#[derive(Debug, Default)]
pub struct Teller {
    listener: Mutex<Option<mpsc::Sender<Fact>>>,
}

impl Teller {
    /// [`crate::Backend::facts`] of whoever tells by this.
    pub fn subscribe(&self) -> Facts {
        let (sender, receiver) = mpsc::channel(UNREAD_MAX);
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Nobody listens any more, and the listener hears of it.
    pub fn close(&self) {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Waits while the listener has too much unread.
    pub async fn tell(&self, fact: Fact) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(listener) = listener {
            // A listener that went away wants no facts.
            let _ = listener.send(fact).await;
        }
    }
}
