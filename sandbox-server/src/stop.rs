//! Ending calls early, and remembering who wanted it.

use crate::{outcome::Outcome, slot::InitError};
use slotmux_protocol::{CausedBy, Ended, Network};
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

/// Handed down: stopping a slot stops its calls, stopping a call stops nothing else.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    by: Arc<OnceLock<CausedBy>>,
    above: Option<Arc<Stop>>,
}

impl Stop {
    pub(crate) fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
            by: Arc::default(),
            above: Some(Arc::new(self.clone())),
        }
    }

    pub(crate) fn stop(&self, by: CausedBy) {
        // The first one stands.
        let _ = self.by.set(by);
        self.token.cancel();
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.token.is_cancelled()
    }

    pub(crate) fn by(&self) -> CausedBy {
        let own = self.by.get().copied();
        own.or_else(|| self.above.as_ref().map(|it| it.by())).unwrap_or(CausedBy::Infra)
    }

    /// The init went away under a call: by our own doing, if the call was stopped.
    pub(crate) fn outcome_of_lost(&self, error: &InitError, network: Network) -> Outcome {
        if self.is_stopped() {
            return Outcome::cut_short(
                Ended::Cancelled,
                self.by(),
                "Command was cancelled",
                network,
            );
        }
        let error = crate::chain(error);
        tracing::error!(%error, "slot-init lost");
        let text = format!("The slot was lost while the command ran: {error}");
        Outcome::cut_short(Ended::Lost, CausedBy::Infra, &text, network)
    }
}
