//! On the kernel: namespaces, mounts, cgroups, settings, clocks, and calls that few need.

use super::Action;

pub(super) const ACTIONS: &[Action] = &[
    Action::bash(
        "namespaces of its own",
        "for flag in -U -m -p -n -i -u -C -T -Ur -Urm -Urmpf; do
           unshare $flag true 2>/dev/null && echo ESCAPED $flag; done; echo TRIED",
    ),
    Action::bash(
        "namespaces of others",
        "for process in /proc/[0-9]*; do for kind in m u i n p C U; do
           nsenter -t ${process#/proc/} -$kind true 2>/dev/null && echo ESCAPED $process $kind
         done; done; echo TRIED",
    ),
    Action::bash(
        "mounts",
        "mkdir -p at; for try in '-t tmpfs x at' '-t proc x at' '-t sysfs x at' '-t cgroup x at' '-t cgroup2 x at' \\
             '-t overlay -o lowerdir=/,upperdir=at,workdir=at x at' '-t devtmpfs x at' '-t debugfs x at' '-t fuse x at' \\
             '--bind / at' '--rbind /proc at' '--move /tmp at' '-o remount,rw /' '-o remount,rw /usr' \\
             '-o remount,bind,suid,dev,exec /tmp' '--make-rshared /'; do
           mount $try 2>/dev/null && echo ESCAPED \"$try\"; done
         for dir in / /proc /proc/kcore /etc/passwd /tmp /dev /workspace; do
           umount -l $dir 2>/dev/null && echo ESCAPED umount $dir; done; echo TRIED",
    ),
    Action::bash(
        "another root directory",
        "mkdir -p at/old; cp /bin/true at 2>/dev/null; chroot at /true 2>/dev/null && echo ESCAPED
         pivot_root at at/old 2>/dev/null && echo ESCAPED; cd at; cd ../../../../../../../..
         [ \"$(cd -P .. 2>/dev/null; pwd -P)\" = / ] && ls home/*/ root/.ssh 2>/dev/null | grep -q . && echo ESCAPED
         echo TRIED",
    ),
    Action::bash(
        "settings of the kernel",
        // Opened, not written: where it succeeds nothing is to change.
        "for file in /proc/sys/kernel/* /proc/sys/vm/* /proc/sys/fs/* /proc/sys/fs/*/* /proc/sys/net/core/* \\
             /proc/sys/net/ipv4/* /proc/sys/user/* /proc/sysrq-trigger /proc/irq/*/smp_affinity /proc/acpi/* \\
             /proc/mtrr /proc/self/loginuid /proc/timer_list /proc/scsi/scsi; do
           # The first is opened by all and written by those who have the power.
           case $file in */ns_last_pid | /proc/self/loginuid) continue;; esac; [ -f \"$file\" ] || continue
           (exec 3>> \"$file\") 2>/dev/null && echo ESCAPED \"$file\"; done; echo TRIED",
    ),
    Action::bash(
        "files of /sys",
        "for file in /sys/kernel/mm/*/* /sys/power/* /sys/fs/cgroup/* /sys/module/*/parameters/* /sys/block/*/queue/* \\
             /sys/kernel/debug/* /sys/firmware/efi/efivars/* /sys/class/net/*/mtu; do
           [ -f \"$file\" ] || continue; (exec 3>> \"$file\") 2>/dev/null && echo ESCAPED \"$file\"; done; echo TRIED",
    ),
    Action::bash(
        "leaves its cgroup",
        "for file in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/tasks /sys/fs/cgroup/*/cgroup.procs \\
             /sys/fs/cgroup/*/*/cgroup.procs /sys/fs/cgroup/*/docker/*/cgroup.procs /sys/fs/cgroup/*/slotmux*/*/tasks; do
           (echo $$ > \"$file\") 2>/dev/null && echo ESCAPED \"$file\"; done
         for file in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/*/release_agent \\
             /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/*/slotmux*/*/pids.max \\
             /sys/fs/cgroup/*/slotmux*/*/memory.limit_in_bytes; do
           (exec 3>> \"$file\") 2>/dev/null && echo ESCAPED \"$file\"; done
         mkdir /sys/fs/cgroup/memory/slot-{mark} /sys/fs/cgroup/slot-{mark} 2>/dev/null && echo ESCAPED; echo TRIED",
    ),
    Action::bash(
        "the time of day",
        // To what it is: where it succeeds little is to change.
        "date -s \"@$(date +%s)\" > /dev/null 2>&1 && echo ESCAPED; hwclock --systohc 2>/dev/null && echo ESCAPED; echo TRIED",
    ),
    Action::probe("the time of day, by each of its calls", "calls", "clocks"),
    Action::bash(
        "the name of the machine",
        "hostname \"$(hostname)\" 2>/dev/null && echo ESCAPED; (exec 3>> /proc/sys/kernel/hostname) 2>/dev/null && echo ESCAPED
         (exec 3>> /proc/sys/kernel/domainname) 2>/dev/null && echo ESCAPED; echo TRIED",
    ),
    Action::bash("the kernel's messages", "dmesg 2>/dev/null | grep -q . && echo ESCAPED; dmesg -c > /dev/null 2>&1 && echo ESCAPED; echo TRIED"),
    Action::probe("a restart of the machine", "calls", "power"),
    Action::probe("swap, accounts and quotas of the machine", "calls", "storage"),
    Action::probe("modules of the kernel", "calls", "modules"),
    Action::probe("ports and memory of the hardware", "calls", "hardware"),
    Action::probe("mounts by the newer calls", "calls", "mounts"),
    Action::probe("watching the file system of the machine", "calls", "watching"),
    Action::probe("rings, programs and counters in the kernel", "calls", "engines"),
    Action::probe("keyrings, own and shared", "calls", "keys"),
    Action::probe("memory of others by its newer calls", "calls", "memory"),
    Action::probe("typing into a terminal for its owner", "typing", ""),
    Action::probe("walls of its own, as many as the kernel takes", "layers", ""),
    Action::bash(
        "powers kept over an exec",
        "for set in Inh Prm Eff Amb; do grep -q \"Cap$set:.*[1-9a-f]\" /proc/self/status && echo ESCAPED $set; done
         capsh --print 2>/dev/null | grep -q 'Current: =.*cap' && echo ESCAPED
         setpriv --inh-caps +all --ambient-caps +all true 2>/dev/null && echo ESCAPED
         setpriv --reuid 0 --clear-groups true 2>/dev/null && echo ESCAPED; echo TRIED",
    ).but_for_root(super::ROOT),
];
