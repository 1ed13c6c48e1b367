//! Memory of a slot without a cgroup: of its processes, and of files that are nowhere but there.

use super::{
    held::{Held, Scan},
    processes,
};
use crate::{clock::now, isolate::Birth};
use rustix::fs::{stat, statvfs};
use slotmux_protocol::Isolation;
use std::{fs, time::Duration};

const PAGE_BYTES: u64 = 4_096;
/// File systems of a slot that take memory.
const OWN: [&str; 2] = ["/tmp", "/dev/shm"];
const STEP: Duration = Duration::from_millis(2);
/// Files that are held open are looked for this seldom, and for a twentieth of the time.
const REST_MIN: Duration = Duration::from_millis(200);
const REST_FACTOR: u32 = 19;

pub(super) struct MemoryWatch {
    limit_bytes: u64,
    peak_bytes: u64,
    held_bytes: u64,
    scan: Option<Scan>,
    worked: Duration,
    rested_at: Duration,
    /// Files in memory of the whole machine, when they were looked at last.
    machine_bytes: u64,
}

impl MemoryWatch {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            peak_bytes: 0,
            held_bytes: 0,
            scan: None,
            worked: Duration::ZERO,
            rested_at: Duration::ZERO,
            machine_bytes: 0,
        }
    }

    /// What was held before is asked anew: who held it may be gone.
    pub(super) fn begin(&mut self) {
        self.peak_bytes = 0;
        self.held_bytes = 0;
        self.scan = None;
        self.rested_at = Duration::ZERO;
    }

    /// As far as it was seen.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    pub(super) fn is_over(&mut self, birth: &Birth) -> bool {
        let pids = processes(birth);
        self.look_for_held(birth, &pids);
        let files = self.held_bytes.saturating_add(in_own_files(birth));
        let resident: u64 = pids.iter().map(|pid| resident_bytes(*pid)).sum();
        let mut bytes = resident.saturating_add(files);
        if bytes > self.limit_bytes {
            // Dear, and so only asked when it matters.
            bytes = exact_bytes(&pids, files);
        }
        self.peak_bytes = self.peak_bytes.max(bytes);
        bytes > self.limit_bytes
    }

    fn look_for_held(&mut self, birth: &Birth, pids: &[i32]) {
        if self.scan.is_none() {
            let machine = rustix::system::sysinfo();
            let machine = (machine.sharedram as u64).saturating_mul(u64::from(machine.mem_unit));
            // Somebody has filled much: it may be this slot.
            let jumped = machine.saturating_sub(self.machine_bytes) > self.limit_bytes / 16;
            if !jumped && now() < self.rested_at {
                return;
            }
            self.machine_bytes = machine;
            self.scan = Some(Scan::new(pids.to_owned(), &[], &own_devices(birth)));
            self.worked = Duration::ZERO;
        }
        let begun = now();
        let done = self.scan.as_mut().and_then(|scan| scan.step(STEP));
        self.worked += now().saturating_sub(begun);
        if let Some(Held { memory_bytes, .. }) = done {
            self.held_bytes = memory_bytes;
            self.scan = None;
            self.rested_at = now() + REST_MIN.max(self.worked * REST_FACTOR);
        }
    }
}

fn own_devices(birth: &Birth) -> Vec<u64> {
    match birth.rung {
        Isolation::Namespaces => OWN.into_iter().flat_map(stat).map(|it| it.st_dev).collect(),
        _ => Vec::new(),
    }
}

/// What was written to the slot's own file systems in memory, and its System V segments.
fn in_own_files(birth: &Birth) -> u64 {
    if birth.rung != Isolation::Namespaces {
        return 0;
    }
    let used = OWN
        .into_iter()
        .flat_map(statvfs)
        .map(|it| it.f_blocks.saturating_sub(it.f_bfree).saturating_mul(it.f_frsize));
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    used.sum::<u64>().saturating_add(segment_bytes(&segments))
}

/// The column `rss` and, behind it, `swap`.
fn segment_bytes(table: &str) -> u64 {
    let mut lines = table.lines();
    let Some(rss) = lines.next().and_then(|it| it.split_whitespace().position(|it| it == "rss"))
    else {
        return 0;
    };
    let sizes = lines.flat_map(|line| line.split_whitespace().skip(rss).take(2));
    sizes.filter_map(|it| it.parse::<u64>().ok()).fold(0, u64::saturating_add)
}

fn resident_bytes(pid: i32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
    pages * PAGE_BYTES
}

/// Shared pages counted once where that can be told. A file in memory that is mapped is seen both
/// ways: the larger of the two stands.
fn exact_bytes(pids: &[i32], files: u64) -> u64 {
    let (mut rest, mut mapped) = (0_u64, 0_u64);
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        match proportional_bytes(&text) {
            Some((all, shmem)) => {
                rest = rest.saturating_add(all.saturating_sub(shmem));
                mapped = mapped.saturating_add(shmem);
            }
            None => rest = rest.saturating_add(resident_bytes(*pid)),
        }
    }
    rest.saturating_add(mapped.max(files))
}

/// All of it, and what of that is files in memory.
fn proportional_bytes(rollup: &str) -> Option<(u64, u64)> {
    let bytes = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1_024)
    };
    Some((bytes("Pss:")?, bytes("Pss_Shmem:").unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_counted_by_what_is_there_of_them() {
        let table = "       key      shmid perms       size  cpid  lpid nattch   uid   gid  cuid  \
                     cgid      atime      dtime      ctime        rss       swap\n         1          \
                     0   666 1000000000     5     5      0  1000  1000  1000  1000          0          \
                     0          7       8192       4096\n";
        assert_eq!(segment_bytes(table), 12_288);
        assert_eq!(segment_bytes(""), 0);
    }

    #[test]
    fn shares_are_read_from_a_rollup() {
        let rollup = "55-7f ---p 00000000 00:00 0 [rollup]\nRss: 900 kB\nPss:  500 kB\n\
                      Pss_Anon: 100 kB\nPss_Shmem:  300 kB\n";
        assert_eq!(proportional_bytes(rollup), Some((512_000, 307_200)));
        assert_eq!(proportional_bytes(""), None);
    }
}
