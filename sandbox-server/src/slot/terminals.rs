//! The slot's terminal sessions: they live with what is behind the slot.

use super::works::Works;
use crate::{outcome::Outcome, stop::Stop, terminal::Failed};
use slotmux_protocol::{CallLimits, Code, Network, Problem, TerminalArgs};

impl Works {
    pub(super) async fn terminal(
        &mut self,
        args: &TerminalArgs,
        limits: CallLimits,
        network: Network,
        stop: &Stop,
    ) -> Result<Outcome, Problem> {
        let Some(init) = self.init.as_mut().filter(|_| !self.lost) else {
            return Err(Problem::new(Code::SlotBroken, "the slot has no processes"));
        };
        self.quiet = false;
        match self.terminals.call(init, args, limits, network, stop).await {
            Ok(outcome) => Ok(outcome),
            Err(Failed::Problem(problem)) => Err(problem),
            Err(Failed::Init(error)) => {
                self.lost = true;
                Ok(stop.outcome_of_lost(&error, network))
            }
        }
    }
}
