//! The report for people.

use super::{Calls, Failure, Report, Rewards};
use std::{collections::BTreeMap, fmt};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} trajectories in {:.1} s", self.file, self.trajectories, self.seconds)?;
        if let Some(total) = self.interrupted_of {
            writeln!(f, "  INTERRUPTED: {total} were to run")?;
        }
        writeln!(f, "  as expected   {}", self.held)?;
        if self.failed > 0 {
            writeln!(f, "  FAILED        {}", self.failed)?;
        }
        if self.infra_errors > 0 {
            writeln!(f, "  INFRA ERRORS  {}", self.infra_errors)?;
        }
        if self.skipped > 0 {
            writeln!(f, "  skipped       {} (missing: {})", self.skipped, counts(&self.missing))?;
        }
        write!(f, "{}", self.calls)?;
        writeln!(
            f,
            "speed           {} calls/s, {} trajectories/s",
            self.calls_per_s, self.trajectories_per_s
        )?;
        writeln!(f, "rewards         {}", self.rewards)?;
        let resets = self.resets.map_or("unknown".to_owned(), |resets| resets.to_string());
        writeln!(
            f,
            "slots           {} in {} containers; {resets} resets",
            self.slots_used, self.containers_used
        )?;
        writeln!(f, "isolation       {}", counts(&self.isolation))?;
        self.failures(f)
    }
}

impl Report {
    fn failures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.failures.is_empty() {
            return Ok(());
        }
        writeln!(f)?;
        for failure in &self.failures {
            writeln!(f, "{}:{failure}", self.file)?;
        }
        if self.failures_unnamed > 0 {
            writeln!(f, "… and {} more", self.failures_unnamed)?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unmet = &self.unmet;
        write!(f, "{}: `{}`", unmet.line, self.trajectory_id)?;
        if let Some(call) = unmet.call {
            write!(f, " calls[{call}]")?;
        }
        write!(f, ": expected {}, came {}", unmet.expected, unmet.came)?;
        for line in unmet.output.lines() {
            write!(f, "\n    | {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "calls           {} ({})", self.total, counts(&self.ended))?;
        writeln!(f, "caused by       {}", counts(&self.caused_by))?;
        for (name, tool) in &self.by_tool {
            writeln!(
                f,
                "  {name:<12}  {:>6} calls   p50 {:>9.3} ms   p99 {:>9.3} ms",
                tool.calls, tool.p50_ms, tool.p99_ms
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Rewards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mean {
            Some(mean) => {
                write!(f, "{} (mean {mean:.3}; {} full, {} zero)", self.count, self.full, self.zero)
            }
            None => f.write_str("none"),
        }
    }
}

fn counts<K: fmt::Display>(counts: &BTreeMap<K, usize>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    let counts: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    counts.join(", ")
}
