//! How many containers a profile should have.
//!
//! Up: to the demand, at once and in one step. Down: only idle containers, only after there were
//! too many for the whole cooldown, and then to the most that were needed in that time.

use super::{
    Core, Turn,
    profile::{ScaleTimer, Surplus},
    timer::Timer,
    types::Millis,
};

impl Core {
    pub(super) fn rescale(&mut self, turn: &mut Turn<'_>, key: u16) {
        if self.closing.is_some() {
            return;
        }
        let profile = &mut self.profiles[usize::from(key)];
        let (needed, serving) = (profile.needed(), profile.serving());
        if serving <= needed {
            profile.surplus = None;
            if turn.now >= profile.launches.not_before {
                for _ in serving..needed {
                    self.launch(turn, key);
                }
            }
            return;
        }
        let since = turn.now;
        let surplus = profile.surplus.get_or_insert(Surplus { since, needed_max: needed });
        surplus.needed_max = surplus.needed_max.max(needed);
        if profile.scale_timer == ScaleTimer::Off {
            profile.scale_timer = ScaleTimer::Armed;
            let due = surplus.since.plus(profile.settings.cooldown_ms);
            self.timers.push(due, Timer::Scale(key));
        }
    }

    pub(super) fn check_surplus(&mut self, turn: &mut Turn<'_>, key: u16) {
        let profile = &mut self.profiles[usize::from(key)];
        profile.scale_timer = ScaleTimer::Off;
        if let Some(surplus) = profile.surplus
            && self.closing.is_none()
            && turn.now >= surplus.since.plus(profile.settings.cooldown_ms)
        {
            profile.surplus = None;
            let spare = profile.serving().saturating_sub(surplus.needed_max);
            for _ in 0..spare {
                let Some(idle) = self.profiles[usize::from(key)].idle.last() else { break };
                self.drain(turn, idle);
            }
        }
        self.rescale(turn, key);
    }

    /// No container can be had before `not_before`, and waiting is not known to help.
    pub(super) fn is_hopeless(&self, key: u16, now: Millis) -> bool {
        let profile = &self.profiles[usize::from(key)];
        let launches = &profile.launches;
        launches.hopeless && profile.serving() == 0 && now < launches.not_before
    }
}
