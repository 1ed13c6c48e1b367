//! On processes: outliving a time-out or a reset, gaining power, taking the place of others.

use super::{Action, Place};

pub(super) const ACTIONS: &[Action] = &[
    Action::bash(
        "a swarm that forks while it is ended",
        "swarm() { while :; do (setsid sleep 3000.{mark} &); done; }; swarm & swarm & (setsid bash -c 'while :; do
           sleep 3000.{mark} & disown; done' &) ; wait",
    )
    .within(0.5)
    .ends(&["timeout", "pids"]),
    Action::bash(
        "stops every process that it may",
        "sleep 3000.{mark} & kill -STOP -1; kill -STOP $PPID 2>/dev/null; kill -STOP $$; echo woken",
    )
    .within(1.0)
    .ends(&["timeout"]),
    Action::bash(
        "closes its output and goes on",
        "exec 0<&- 1>&- 2>&-; exec sleep 3000.{mark}",
    )
    .within(0.3)
    .ends(&["timeout"]),
    Action::bash(
        "waits for a terminal that nobody has",
        "cat /dev/tty 2>/dev/null; read -r x < /dev/ptmx; sleep 3000.{mark}",
    )
    .within(0.3)
    .ends(&["timeout"]),
    Action::bash(
        "handles every signal and starts itself again",
        "again() { trap again TERM INT HUP QUIT USR1 USR2 PIPE CHLD; (setsid sleep 3000.{mark} &)
           (trap '' TERM HUP; sleep 3000.{mark}); again; }; again",
    )
    .within(0.5)
    .ends(&["timeout"]),
    Action::bash(
        "a name that reads like another process",
        "cp /bin/sleep './) S 1 1 (x'; (setsid './) S 1 1 (x' 3000.{mark} &)
         printf '#!/bin/sh\\nsleep 3000.{mark}\\n' > 'a\nState: Z'; chmod +x 'a\nState: Z'; (setsid './a\nState: Z' &)
         exec './) S 1 1 (x' 3000.{mark}",
    )
    .within(0.5)
    .ends(&["timeout"]),
    Action::probe("children that become their parent's siblings", "siblings", "{mark}"),
    Action::probe("a process that takes the orphans to itself", "subreaper", "{mark}"),
    Action::probe("a crowd of processes that are never waited for", "zombies", "100"),
    Action::probe("another user's or group's identity", "identities", "").but_for_root(super::ROOT),
    Action::probe("its own init, traced and written to", "own_init", ""),
    Action::probe("memory that is kept from being counted", "locked_memory", ""),
    Action::bash(
        "a lower score for the memory killer",
        "(echo -1000 > /proc/self/oom_score_adj) 2>/dev/null && echo ESCAPED
         (echo -17 > /proc/self/oom_adj) 2>/dev/null && echo ESCAPED
         (echo -1 > /proc/$PPID/oom_score_adj) 2>/dev/null && echo ESCAPED; echo TRIED",
    ),
    Action::bash(
        "more of the processor than others",
        "chrt -f 99 true 2>/dev/null && echo ESCAPED fifo; chrt -r 1 true 2>/dev/null && echo ESCAPED rr
         chrt -d --sched-runtime 1000000 --sched-period 2000000 0 true 2>/dev/null && echo ESCAPED deadline
         [ \"$(nice -n -20 nice 2>/dev/null)\" = 0 ] || echo ESCAPED nice
         ionice -c 1 true 2>/dev/null && echo ESCAPED disk; echo TRIED",
    ),
    Action::bash(
        "higher limits",
        "for limit in '-Hn 1048576' '-Hu unlimited' '-Hc unlimited' '-Hf unlimited' '-Hr 99' '-He 40' '-Hl unlimited'; do
           before=$(ulimit ${limit% *}); ulimit $limit 2>/dev/null
           [ \"$(ulimit ${limit% *})\" = \"$before\" ] || echo ESCAPED \"$limit\" \"$before\"
         done; echo TRIED",
    ),
    Action::bash(
        "memory written to disk by a crash",
        "ulimit -c unlimited 2>/dev/null; (kill -SEGV $BASHPID); (kill -ABRT $BASHPID)
         [ -z \"$(ls -A)\" ] || echo ESCAPED; echo TRIED",
    ),
    Action::bash(
        "set-uid programs of the image",
        "for try in 'su -c id' 'su -s /bin/sh root -c id' 'newgrp root' 'passwd -d root' 'chsh -s /bin/sh root' \\
             'mount -t tmpfs x /tmp' 'umount -l /proc' 'sudo -n id' 'pkexec id' 'gpasswd -a slot root'; do
           command -v ${try%% *} > /dev/null || continue
           timeout 2 $try < /dev/null 2>/dev/null | grep -q 'uid=0' && echo ESCAPED \"$try\"
         done
         for program in $(find /usr/bin /usr/sbin /usr/lib -perm /6000 -type f 2>/dev/null | head -20); do
           LD_PRELOAD=$PWD/evil.so LD_LIBRARY_PATH=$PWD timeout 2 $program --version < /dev/null > /dev/null 2>&1
         done; [ \"$(id -u)\" != 0 ] && echo TRIED",
    ).but_for_root(super::ROOT),
    Action::bash(
        "signals to a call that runs later",
        "(setsid bash -c 'while :; do kill -9 -1; done' > /dev/null 2>&1 &) ; echo begun",
    )
    .neighbour("echo works", "works"),
    Action::bash(
        "names of the neighbour's processes",
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q 'sleep 400[0]' && echo ESCAPED; echo TRIED",
    )
    .except(
        Place::Rungs(&["uid", "landlock"]),
        "other processes: names and arguments in `/proc` | not visible | **visible** | **visible**",
    ),
];
