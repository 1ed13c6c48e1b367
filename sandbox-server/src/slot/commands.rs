//! Commands in a slot: what may be asked for, how it is run, and what came of it.

use super::{
    meter::{Meter, cpu_time_over},
    process::{Chunks, Order},
    works::Works,
};
use crate::{
    outcome::Outcome,
    stop::Stop,
    wire::{Done, End, Shell},
};
use slotmux_protocol::{
    BashArgs, BashStatefulArgs, CallLimits, CausedBy, Code, Ended, Network, Problem,
};
use std::io;

/// What the kernel takes as one string of an environment, without its end.
const VARIABLE_BYTES_MAX: usize = (128 << 10) - 1;
/// Of a whole environment: with the command it has to fit what the kernel takes.
const ENVIRONMENT_BYTES_MAX: usize = 1 << 20;
const VARIABLES_MAX: usize = 4_096;
/// Of a path, with its end.
const PATH_BYTES_MAX: usize = 4_096;

/// Of what came from outside, in an error.
const SHOWN_CHARS_MAX: usize = 100;

/// What a command is run within, whatever shell runs it.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) limits: CallLimits,
    pub(super) network: Network,
    /// Who is told what it prints while it runs.
    pub(super) output: Option<Chunks>,
}

impl Works {
    pub(super) async fn bash(
        &mut self,
        args: BashArgs,
        terms: Terms,
        stop: &Stop,
    ) -> Result<Outcome, Problem> {
        check(&args)?;
        self.command(args, Shell::Fresh, terms, stop).await
    }

    pub(super) async fn bash_stateful(
        &mut self,
        args: BashStatefulArgs,
        terms: Terms,
        stop: &Stop,
    ) -> Result<Outcome, Problem> {
        let shell = if args.restart { Shell::Restarted } else { Shell::Kept };
        self.command(BashArgs::new(args.command), shell, terms, stop).await
    }

    async fn command(
        &mut self,
        args: BashArgs,
        shell: Shell,
        terms: Terms,
        stop: &Stop,
    ) -> Result<Outcome, Problem> {
        let Some(init) = self.init.as_mut().filter(|_| !self.lost) else {
            return Err(Problem::new(Code::SlotBroken, "the slot has no processes"));
        };
        let was_quiet = std::mem::replace(&mut self.quiet, false);
        self.cgroup.prepare_for_call(was_quiet).await;
        let Terms { limits, network, output } = terms;
        let meter = Meter::start(&mut self.cgroup, self.counted.take());
        let cwd = args.cwd.clone().unwrap_or_default();
        let order = Order { args, shell, limits, network };
        let again = (!was_quiet).then(|| (order.clone(), output.clone()));
        let over = cpu_time_over(&mut self.cgroup, limits.cpu_ms_max);
        let mut done = init.run(order, output, stop.token(), over).await;
        while let Some((order, output)) = &again
            && matches!(&done, Ok(Done { end: End::NotStarted(libc::EAGAIN), .. }))
            && self.cgroup.make_more_room()
        {
            let over = cpu_time_over(&mut self.cgroup, limits.cpu_ms_max);
            done = init.run(order.clone(), output.clone(), stop.token(), over).await;
        }
        let (mut pressure, counted) = meter.read(&mut self.cgroup);
        match done {
            Ok(done) => {
                self.quiet = done.quiet;
                self.counted = done.quiet.then_some(counted);
                refused(&done)?;
                if done.disturbed {
                    pressure.pids_hits = None;
                }
                if was_quiet && done.end == End::NotStarted(libc::EAGAIN) {
                    let text = "Command could not be started: the machine has no more processes";
                    return Ok(Outcome::cut_short(
                        Ended::Lost,
                        CausedBy::Infra,
                        text,
                        done.network,
                    ));
                }
                let text = told_of(&done, &cwd);
                let (by, network) = (stop.by(), done.network);
                let mut outcome = Outcome::of_command(done, pressure, &limits, by, network);
                // Where it ran out of memory, that is what is to be said.
                if let Some(text) = text.filter(|_| is_own_end(outcome.ended)) {
                    outcome.error = text;
                }
                Ok(outcome)
            }
            Err(error) => {
                // Its memory of the call is gone with it; nobody knows how far the command came. It
                // is kept: who ends the slot has to wait until all that it held is gone.
                self.lost = true;
                if pressure.oom_kills > 0 && !stop.is_stopped() {
                    return Ok(Outcome::out_of_memory(network));
                }
                Ok(stop.outcome_of_lost(&error, network))
            }
        }
    }
}

fn is_own_end(ended: Ended) -> bool {
    matches!(ended, Ended::Exited | Ended::Signaled)
}

/// What an exit code alone does not say.
fn told_of(done: &Done, cwd: &str) -> Option<String> {
    let how = match done.end {
        End::NoDirectory(errno) => {
            let reason = io::Error::from_raw_os_error(errno);
            let place = match cwd {
                "" => "workspace".to_owned(),
                cwd => {
                    format!("directory {:?}", cwd.chars().take(SHOWN_CHARS_MAX).collect::<String>())
                }
            };
            return Some(format!("Command cannot begin in the {place}: {reason}"));
        }
        End::Exited(code) if done.shell_ended => format!("exit code {code}"),
        End::Signaled(signal) if done.shell_ended => format!("signal {signal}"),
        _ => return None,
    };
    Some(format!("the shell was ended by its command ({how}); the next call begins with a new one"))
}

/// What an init refuses, it has not run.
fn refused(done: &Done) -> Result<(), Problem> {
    let (code, detail) = match done.end {
        End::NoShell => (
            Code::NoShell,
            "there is neither bash nor sh in the container; install bash in its image",
        ),
        End::NoBash => (
            Code::NoShell,
            "a persistent shell needs bash, and the container has only sh; install bash in its \
             image, or use the tool `bash`, which takes sh where there is no bash",
        ),
        End::HasNetwork => (
            Code::IsolationUnavailable,
            "the slot's persistent shell has a network, so that no command in it can be without; \
             begin a new one with `restart`",
        ),
        _ => return Ok(()),
    };
    Err(Problem::new(code, detail))
}

fn check(args: &BashArgs) -> Result<(), Problem> {
    let invalid = |field: &str, text: String| Err(Problem::new(Code::Invalid, text).at(field));
    if args.env.len() > VARIABLES_MAX {
        let text = format!("at most {VARIABLES_MAX} variables, not {}", args.env.len());
        return invalid("args.env", text);
    }
    let mut bytes = 0;
    for (name, value) in &args.env {
        let shown: String = name.chars().take(SHOWN_CHARS_MAX).collect();
        if name.is_empty() || name.contains(['=', '\0']) {
            return invalid("args.env", format!("{shown:?} is no name of a variable"));
        }
        if value.contains('\0') {
            return invalid("args.env", format!("the value of `{shown}` has a NUL"));
        }
        let length = name.len() + 1 + value.len();
        if length > VARIABLE_BYTES_MAX {
            let text = format!("`{shown}` has {length} bytes, of at most {VARIABLE_BYTES_MAX}");
            return invalid("args.env", text);
        }
        bytes += length;
    }
    if bytes > ENVIRONMENT_BYTES_MAX {
        let text = format!("{bytes} bytes of variables, of at most {ENVIRONMENT_BYTES_MAX}");
        return invalid("args.env", text);
    }
    match &args.cwd {
        Some(cwd) if cwd.is_empty() || cwd.contains('\0') || cwd.len() >= PATH_BYTES_MAX => {
            let text = format!("no directory: 1 to {} bytes without NUL", PATH_BYTES_MAX - 1);
            invalid("args.cwd", text)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_env(name: &str, value: &str) -> BashArgs {
        BashArgs { env: [(name.to_owned(), value.to_owned())].into(), ..BashArgs::new("true") }
    }

    #[test]
    fn names_that_no_environment_can_hold_are_refused() {
        for name in ["", "=", "A=B", "A\0"] {
            let problem = check(&with_env(name, "x")).unwrap_err();
            assert_eq!((problem.code, problem.field.as_deref()), (Code::Invalid, Some("args.env")));
        }
        assert!(check(&with_env("A", "x\0y")).is_err());
        for name in ["A", "a.b", "é", "PATH", "LD_PRELOAD", "with space"] {
            check(&with_env(name, "a=b\nc")).unwrap();
        }
    }

    #[test]
    fn variables_are_taken_up_to_what_the_kernel_takes() {
        check(&with_env("A", &"x".repeat(VARIABLE_BYTES_MAX - 2))).unwrap();
        check(&with_env("A", &"x".repeat(VARIABLE_BYTES_MAX - 1))).unwrap_err();
        let many = |count: usize, value: &str| {
            let env = (0..count).map(|number| (format!("{number:04}"), value.to_owned()));
            check(&BashArgs { env: env.collect(), ..BashArgs::new("true") })
        };
        many(VARIABLES_MAX, "").unwrap();
        many(VARIABLES_MAX + 1, "").unwrap_err();
        many(16, &"x".repeat((64 << 10) - 5)).unwrap();
        many(17, &"x".repeat((64 << 10) - 5)).unwrap_err();
    }

    #[test]
    fn a_directory_is_a_path() {
        let within =
            |cwd: &str| check(&BashArgs { cwd: Some(cwd.to_owned()), ..BashArgs::new("true") });
        within("a/b").unwrap();
        within(&"x".repeat(PATH_BYTES_MAX - 1)).unwrap();
        for cwd in ["", "a\0b", &"x".repeat(PATH_BYTES_MAX)] {
            assert_eq!(within(cwd).unwrap_err().field.as_deref(), Some("args.cwd"));
        }
    }
}
