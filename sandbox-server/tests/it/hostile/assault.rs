//! Making the attempts of a group, and looking at everything else after each.

use super::{Action, Does, Place, Proof, TABLE, Target, target::ensure};
use crate::{
    host::{mark, marked},
    http::bash,
};
use slotmux_protocol::atropos::SlotResult;
use std::time::Duration;
use tokio::time::timeout;

/// For one attempt and what is looked at afterwards.
const PATIENCE: Duration = Duration::from_mins(3);
const SHOWN: &str = "grep -v '^slotmux-it-'";

/// A line for each attempt that was not contained.
pub(crate) async fn assail(target: &Target, group: &str) -> Vec<String> {
    let (_, actions) = TABLE.iter().find(|(name, _)| *name == group).expect("a group of the table");
    let neighbour = mark();
    let begin = format!(
        "echo kept > kept; echo kept > \"$TMPDIR/kept\"; chmod 600 kept; sleep 4000.{neighbour} &"
    );
    if let Err(error) = target.output(1, &begin).await {
        return vec![format!("the neighbour does not begin: {error}")];
    }
    let mut faults = Vec::new();
    for action in *actions {
        if let Some(why) = excepted(target, action) {
            println!("known limit: {} on {}: {why}", action.name, target.name);
            continue;
        }
        let mark = mark();
        let made = timeout(PATIENCE, make(target, action, &mark)).await;
        if let Err(fault) = made.unwrap_or_else(|_| Err("it is not over in time".to_owned())) {
            faults.push(format!("{}: {fault}", action.name));
        }
        let after = timeout(PATIENCE, look_round(target, &mark, &neighbour)).await;
        if let Err(fault) = after.unwrap_or_else(|_| Err("nothing is answered".to_owned())) {
            faults.push(format!("after {}: {fault}", action.name));
        }
    }
    faults
}

fn excepted(target: &Target, action: &Action) -> Option<&'static str> {
    let mut limits = action.limit.iter().chain(&action.owned);
    let known = limits.find(|it| match it.place {
        Place::Rungs(rungs) => rungs.contains(&&*target.isolation),
        Place::Image => target.image,
        Place::Supervised => target.supervised,
    });
    known.map(|it| it.said)
}

async fn make(target: &Target, action: &Action, mark: &str) -> Result<(), String> {
    let result = match &action.does {
        Does::Requests(requests) => return requests(target).await,
        Does::Bash { command, seconds } => {
            let Some(command) = fill_in(target, command, mark) else {
                println!("left out: {} on {}: no probe", action.name, target.name);
                return Ok(());
            };
            let mut call = bash(0, &command);
            call["timeout"] = (*seconds).into();
            target.call(call).await?
        }
        Does::Probe { name, args, seconds } => {
            let args = args.replace("{port}", target.port());
            let Some(command) = probe_command(target, name, &args) else {
                println!("left out: {} on {}: no probe", action.name, target.name);
                return Ok(());
            };
            let mut call = bash(0, &command);
            call["timeout"] = (*seconds).into();
            let result = target.call(call).await?;
            ensure(result.success, || format!("{result:?}"))?;
            match action.proof {
                // A probe has said it by its success.
                Proof::Refused => return Ok(()),
                _ => result,
            }
        }
    };
    prove(target, &action.proof, result, mark).await
}

async fn prove(
    target: &Target,
    proof: &Proof,
    result: SlotResult,
    mark: &str,
) -> Result<(), String> {
    let ended = result.metadata.get("ended").and_then(|it| it.as_str()).unwrap_or_default();
    match proof {
        Proof::Answers => Ok(()),
        Proof::Refused => {
            ensure(result.output.contains("TRIED") && !result.output.contains("ESCAPED"), || {
                format!("{result:?}")
            })
        }
        Proof::Ends(ways) => {
            let policy = result.metadata.get("caused_by").is_some_and(|it| it == "policy");
            ensure(ways.contains(&ended) && policy, || format!("{result:?}"))
        }
        Proof::Neighbour { command, prints } => {
            let command = fill_in(target, command, mark).unwrap_or_default();
            let output = target.output(1, &command).await?;
            ensure(output == *prints, || format!("the neighbour sees {output:?} after {result:?}"))
        }
        Proof::NextLease { command, prints } => {
            ensure(result.success, || format!("it did not begin: {result:?}"))?;
            target.reset(0).await?;
            let command = fill_in(target, command, mark).unwrap_or_default();
            let output = target.output(0, &command).await?;
            ensure(output == *prints, || format!("the next lease sees {output:?}"))
        }
    }
}

/// The neighbour has noticed nothing; the slot is as new after a reset; the server is the same.
async fn look_round(target: &Target, mark: &str, neighbour: &str) -> Result<(), String> {
    // What is shown to all slots may lie in their /tmp.
    let seen = format!("cat kept \"$TMPDIR/kept\"; ls -A; ls -A \"$TMPDIR\" | {SHOWN}");
    let seen = target.output(1, &seen).await;
    // Whatever is wrong: the next attempt is made in a fresh slot.
    target.reset(0).await?;
    let left = marked(mark);
    ensure(left.is_empty(), || format!("processes {left:?} outlived the reset"))?;
    let fresh = format!("ls -A . \"$TMPDIR\" | {SHOWN} | grep -v -e : -e '^$'; echo $(echo works)");
    let fresh = target.output(0, &fresh).await?;
    ensure(fresh == "works", || format!("the next lease finds {fresh:?}"))?;
    let alive = std::path::Path::new("/proc").join(target.pid.to_string()).exists();
    ensure(alive, || "the server is gone".to_owned())?;
    ensure(marked(neighbour).len() == 1, || "the neighbour's process is gone".to_owned())?;
    let seen = seen?;
    if seen != "kept\nkept\nkept\nkept" {
        target
            .output(1, "find . \"$TMPDIR\" -mindepth 1 ! -name kept -delete 2>/dev/null; true")
            .await?;
        return Err(format!("the neighbour sees {seen:?}"));
    }
    Ok(())
}

fn probe_command(target: &Target, name: &str, args: &str) -> Option<String> {
    let probe = target.probe.as_ref()?;
    Some(format!(
        "PROBE={name} PROBE_ARGS='{args}' {} --exact probe::in_a_slot --nocapture --quiet",
        probe.display()
    ))
}

/// `{probe NAME ARGS}` stands for a command.
fn fill_in(target: &Target, command: &str, mark: &str) -> Option<String> {
    let mut command = command
        .replace("{mark}", mark)
        .replace("{port}", target.port())
        .replace("{data}", &target.data_dir.display().to_string());
    while let Some(begin) = command.find("{probe ") {
        let end = begin + command[begin..].find('}')?;
        let (name, args) =
            command[begin + 7..end].split_once(' ').unwrap_or((&command[begin + 7..end], ""));
        let probe = probe_command(target, name, args)?;
        command.replace_range(begin..=end, &probe);
    }
    Some(command)
}
