//! On files: names, links, modes, and what the file tools are led to.

use super::{Action, Target, target::ensure};
use crate::http::{read_file, write_file};

pub(super) const ACTIONS: &[Action] = &[
    Action::bash(
        "hard links to what is outside",
        "for file in /etc/passwd /usr/bin/env /proc/self/exe {data}/.lock {data}/slots/slot_1/workspace/kept; do
           ln \"$file\" linked 2>/dev/null && echo ESCAPED \"$file\"; rm -f linked
         done; echo TRIED",
    ),
    Action::bash(
        "moves its own directories away",
        "cd \"$HOME\"; here=$PWD
         mv \"$here\" \"$here.away\" 2>/dev/null && echo ESCAPED moved
         rmdir \"$here\" 2>/dev/null && echo ESCAPED removed
         touch \"$here/../new\" \"$TMPDIR/../new-{mark}\" \"$here/../root/new\" 2>/dev/null && echo ESCAPED made
         rm -rf \"$here/../tmp\" \"$here/../root\" \"$here/../workspace\" 2>/dev/null
         cd \"$here\" && touch still && echo TRIED",
    ).but_for_root(super::ROOT),
    Action::bash(
        "gives files to others",
        "touch f; for id in 0 1 65534 1000000002 30002; do
           chown $id f 2>/dev/null && echo ESCAPED owner $id
           chgrp $id f 2>/dev/null && echo ESCAPED group $id
         done; echo TRIED",
    ).but_for_root(super::ROOT),
    Action::bash(
        "makes devices",
        "mknod disk b 254 0 2>/dev/null && echo ESCAPED; mknod memory c 1 1 2>/dev/null && echo ESCAPED
         mknod kmsg c 1 11 2>/dev/null && echo ESCAPED; mknod pipe p && echo TRIED",
    ),
    Action::probe("files that cannot be changed, and powers on files", "attributes", ""),
    Action::bash(
        "reads disks, memory and the kernel's log",
        "for file in /dev/vda /dev/sda /dev/nvme0n1 /dev/mem /dev/port /dev/kmsg /proc/kcore \\
             /proc/kpagecount /proc/kpageflags /proc/slabinfo /proc/1/mem /proc/1/environ \\
             /etc/shadow /etc/gshadow /root/.bashrc /var/log/dpkg.log /run/utmp; do
           # Not the shell itself: an exec of a special file would be counted as read.
           [ \"$(head -c 16 \"$file\" 2>/dev/null | wc -c)\" = 0 ] || echo ESCAPED \"$file\"
         done; echo TRIED",
    ),
    Action::bash(
        "scheduled jobs, start scripts and loaders of the system",
        "for file in /var/spool/cron/crontabs/slot /var/spool/cron/slot /etc/cron.d/slot /etc/profile.d/slot.sh \\
             /etc/ld.so.preload /etc/bash.bashrc /etc/environment /usr/local/bin/ls /usr/local/sbin/ls \\
             /lib/x86_64-linux-gnu/slot.so /var/tmp/../spool/slot /etc/init.d/slot /usr/bin/bash; do
           (echo evil >> \"$file\") 2>/dev/null && echo ESCAPED \"$file\"
         done
         (echo '* * * * * true' | crontab -) 2>/dev/null && echo ESCAPED crontab
         (echo true | at now) 2>/dev/null && echo ESCAPED at
         echo TRIED",
    ).but_for_root(super::ROOT),
    Action::bash(
        "start files of shells for the next lease",
        "for file in .bashrc .bash_profile .bash_login .profile .bash_logout .inputrc .bash_env .config/x; do
           mkdir -p .config; echo 'echo INFECTED' > $file; done; export BASH_ENV=$HOME/.bash_env; bash -lc true",
    )
    .next_lease("bash -lc true; bash -ic true 2>/dev/null; env | grep BASH_ENV; echo clean", "clean"),
    Action::bash(
        "programs in front of the system's for the next lease",
        "mkdir -p bin .local/bin; for name in ls bash id git; do
           printf '#!/bin/sh\\necho INFECTED\\n' > $name; chmod +x $name; cp $name bin; cp $name .local/bin; done
         hash -p $PWD/ls ls; export PATH=$PWD:$PATH; ls > /dev/null",
    )
    .next_lease("ls; command -v ls bash | grep -c workspace; echo clean", "0\nclean"),
    Action::bash(
        "names that are no text",
        "touch -- \"$(printf 'a\\nb')\" \"$(printf '\\377\\376')\" -rf ' ' \"$(printf '\\033[2J\\a')\" \\
           \"$(printf 'x%.0s' $(seq 255))\" '*' '$(id)' '..x' && mkdir -p $'\\n/\\\\/-' && ls -A | wc -l",
    )
    .next_lease("ls -A | wc -l", "0"),
    Action::probe("a hundred thousand names", "many_names", "100000").within(80.0),
    Action::bash(
        "a file as large as a disk",
        "truncate -s 8T huge 2>/dev/null && echo ESCAPED; fallocate -l 8T huge 2>/dev/null && echo ESCAPED
         dd if=/dev/zero of=huge bs=1 count=1 seek=8T 2>/dev/null && echo ESCAPED; echo TRIED",
    ),
    Action::bash(
        "files wherever it may for others to find",
        "for dir in /tmp /var/tmp /dev/shm /dev/mqueue /run /run/lock /run/user /var/lock /var/crash /var/mail \\
             /home /mnt /media /srv /dev /dev/pts /proc /sys /usr/local /opt {data} {data}/slots; do
           (echo left > \"$dir/left-{mark}\") 2>/dev/null; done; echo begun",
    )
    .neighbour(
        "ls /tmp/left-{mark} /var/tmp/left-{mark} /dev/shm/left-{mark} /dev/mqueue/left-{mark} \\
           /run/lock/left-{mark} {data}/left-{mark} {data}/slots/left-{mark} 2>/dev/null | wc -l",
        "0",
    ),
    Action::bash(
        "files in shared directories for the next lease",
        "for dir in /tmp /var/tmp /dev/shm /dev/mqueue /run /run/lock /dev /home; do
           (echo left > \"$dir/left-{mark}\") 2>/dev/null; done; echo begun",
    )
    .next_lease(
        "ls /tmp/left-{mark} /var/tmp/left-{mark} /dev/shm/left-{mark} /dev/mqueue/left-{mark} \\
           /run/lock/left-{mark} 2>/dev/null | wc -l",
        "0",
    ),
    Action::requests("links of /proc and /dev in place of files", |it| Box::pin(magic_links(it))),
    Action::requests("links that never end, in place of files", |it| Box::pin(loops(it))),
    Action::requests("directories that turn into links while files are written", |it| {
        Box::pin(turning_directories(it))
    }),
    Action::requests("paths that no file has", |it| Box::pin(odd_paths(it)))
        .but_for_root("in an `image` root below the slot's own root"),
];

async fn magic_links(target: &Target) -> Result<(), String> {
    let names = "a b c d e f g h";
    target
        .output(
            0,
            "ln -s /proc/self/environ a; ln -s /proc/self/root/etc/shadow b; ln -s /proc/1/environ c
             ln -s /dev/stdin d; ln -s /proc/self/fd e; ln -s /proc/self/cwd f; ln -s /dev/zero g
             ln -s /proc/self/exe h",
        )
        .await?;
    for name in names.split(' ') {
        for path in [name.to_owned(), format!("{name}/0"), format!("{name}/.lock")] {
            let read = target.call(read_file(0, &path)).await?;
            ensure(!read.success, || format!("{path} was read: {read:?}"))?;
            let written = target.call(write_file(0, &path, "x")).await?;
            // Such a link may be replaced, but nothing behind it written.
            let seen = target.call(read_file(0, &path)).await?;
            ensure(!written.success || seen.output == "x", || format!("{path}: {written:?}"))?;
        }
    }
    Ok(())
}

async fn loops(target: &Target) -> Result<(), String> {
    let command =
        "ln -s x y; ln -s y x; ln -s . dot; for i in $(seq 60); do ln -s l$((i + 1)) l$i; done
        mkdir d; ln -s ../d d/again; touch d/f";
    target.output(0, command).await?;
    let again = "d/".to_owned() + &"again/".repeat(1_000) + "f";
    for path in ["x", "y/z", "l1", &"dot/".repeat(500), &again] {
        let read = target.call(read_file(0, path)).await?;
        ensure(!read.success && !read.error.is_empty(), || format!("{path}: {read:?}"))?;
    }
    Ok(())
}

/// `race` is by turns a directory of the slot's and a link to the neighbour's.
async fn turning_directories(target: &Target) -> Result<(), String> {
    let outside = target.data_dir.join("slots/slot_1/workspace").display().to_string();
    let command = format!(
        "mkdir dir; ln -s {outside} link; (while :; do
           ln -sfn dir race; ln -sfn {outside} race; ln -sfn link race; rm -rf race; mkdir race; rmdir race
         done) > /dev/null 2>&1 & until [ -e race ]; do :; done"
    );
    target.output(0, &command).await?;
    for _ in 0..60 {
        let read = target.call(read_file(0, "race/kept")).await?;
        ensure(!read.output.contains("kept"), || {
            format!("the neighbour's file was read: {read:?}")
        })?;
        target.call(write_file(0, "race/planted", "x")).await?;
    }
    let seen = target.output(1, "ls -A").await?;
    ensure(seen == "kept", || format!("the neighbour has {seen:?}"))
}

async fn odd_paths(target: &Target) -> Result<(), String> {
    let long = "x".repeat(1 << 20);
    let deep = "d/".repeat(100_000);
    let up = "../".repeat(10_000) + "etc/passwd";
    for path in [
        "",
        ".",
        "..",
        "/",
        "//",
        "\0",
        "a\0b",
        "/workspace",
        "/workspace/..",
        "/proc/self/environ",
        "/dev/full",
        "/etc/passwd",
        "\u{202e}/..",
        &long,
        &deep,
        &up,
    ] {
        let begin = path.chars().take(40).collect::<String>();
        let read = target.call(read_file(0, path)).await?;
        ensure(!read.success && !read.error.is_empty(), || format!("{begin:?}: {read:?}"))?;
        ensure(read.error.len() < 4_096, || format!("{begin:?} is answered at length"))?;
        let written = target.call(write_file(0, path, "x")).await?;
        ensure(!written.success, || format!("{begin:?} was written"))?;
    }
    Ok(())
}
