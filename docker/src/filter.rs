//! The filter of system calls for containers whose slots have namespaces of their own.
//!
//! A list of permissions. Beside what any program uses it permits what builds a slot's root
//! (`unshare`, `mount`, `pivot_root`, …): without capabilities the kernel lets these pass in a user
//! namespace of the caller's own only. What reaches the machine itself stays refused: modules,
//! kexec, clocks, swap, keys, `bpf`, `perf_event_open`, `userfaultfd`, `io_uring`.

/// In the form that engines take.
pub const NAMESPACES_FILTER: &str = include_str!("../seccomp/namespaces.json");

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_filter_is_a_list_of_permissions_with_what_a_slot_needs_and_no_more() {
        let filter: Value = serde_json::from_str(NAMESPACES_FILTER).unwrap();
        assert_eq!(filter["defaultAction"], "SCMP_ACT_ERRNO");
        let allowed: Vec<&str> = filter["syscalls"][0]["names"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        for needed in ["unshare", "clone", "clone3", "mount", "umount2", "pivot_root", "setns"] {
            assert!(allowed.contains(&needed), "{needed}");
        }
        for refused in ["bpf", "kexec_load", "init_module", "keyctl", "reboot", "io_uring_setup"] {
            assert!(!allowed.contains(&refused), "{refused}");
        }
        assert!(allowed.is_sorted());
    }
}
