//! A root directory of the slot's own: read-only system directories, private everything else; or,
//! in `image`, the whole image copied on write.

mod idmap;
pub(crate) mod image;
mod overlay;
pub(crate) mod parts;
mod proc;

use super::{Birth, RootKind, Step, WallError, drop::INSIDE_ID, sys};
use proc::mount_proc;
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags, symlink},
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
        mount_change, mount_remount, unmount,
    },
    process::{chdir, pivot_root},
};
use std::{
    ffi::CString,
    fs,
    path::{Path, PathBuf},
};

/// Directories of the host that a slot sees, read-only, where they exist.
const SYSTEM: [&str; 10] =
    ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "nix"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// The slot's root itself holds nothing but mount points and a few small files.
const ROOT_OPTIONS: &str = "size=1m,nr_inodes=512,mode=755";

const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Builds the root of the slot and makes it this process's. Needs a mount namespace of its own,
/// and the power to mount in it.
pub(crate) fn enter(birth: &Birth) -> Result<(), WallError> {
    match birth.root {
        RootKind::Minimal => enter_minimal(birth),
        RootKind::Image(upper) => image::enter(birth, upper),
        RootKind::Parts(upper) => parts::enter(birth, upper),
    }
}

/// What the server can see by way of this process only, opened once the root is entered: the
/// workspace, and the root itself.
pub(crate) fn views(birth: &Birth) -> Result<Vec<OwnedFd>, WallError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |path: &str| rustix::fs::open(path, flags, Mode::empty()).step("open a view");
    let mut views = Vec::new();
    if birth.is_seen_by_views() {
        views.push(open("/workspace")?);
        if birth.root != RootKind::Minimal {
            views.push(open("/")?);
        }
    }
    Ok(views)
}

fn enter_minimal(birth: &Birth) -> Result<(), WallError> {
    let root = birth.slot_dir.join("root");
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .step("make mounts private")?;
    tmpfs(&root, ROOT_OPTIONS, MountFlags::NOSUID | MountFlags::NODEV).step("mount the root")?;
    for name in SYSTEM {
        show_system(&root, name)?;
    }
    accounts(&root)?;
    devices(&root, birth.limits.tmp_bytes_max)?;
    private_dirs(&root, birth)?;
    // Last, so that nothing is mounted over one below /tmp.
    for path in &birth.exposed {
        show(&root, path)?;
    }
    mount_proc(&root, birth)?;
    pivot(&root, true)
}

fn tmpfs(path: &Path, options: &str, flags: MountFlags) -> rustix::io::Result<()> {
    let options = CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
    mount("slot", path, "tmpfs", flags, options.as_c_str())
}

/// `/bin` is a symbolic link on most systems, and a directory on others.
fn show_system(root: &Path, name: &str) -> Result<(), WallError> {
    let host = Path::new("/").join(name);
    match fs::symlink_metadata(&host) {
        Ok(meta) if meta.is_symlink() => {
            let target = fs::read_link(&host).step("read a system link")?;
            symlink(&target, root.join(name)).step("make a system link")
        }
        Ok(meta) if meta.is_dir() => show(root, &host),
        _ => Ok(()),
    }
}

fn show(root: &Path, host: &Path) -> Result<(), WallError> {
    let inside = root.join(host.strip_prefix("/").unwrap_or(host));
    fs::create_dir_all(&inside).step("make a system directory")?;
    mount_bind_recursive(host, &inside).step("bind a system directory")?;
    sys::lock_mounts(&sys::c_path(&inside).step("name a mount")?, true)
        .step("make a system directory read-only")
}

/// The slot's user has a name and a home, whatever the image says.
fn accounts(root: &Path) -> Result<(), WallError> {
    let id = INSIDE_ID;
    let files = [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/:/usr/sbin/nologin\n\
                 slot:x:{id}:{id}:slot:/workspace:/bin/bash\n\
                 nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
            ),
        ),
        ("group", format!("root:x:0:\nslot:x:{id}:\nnogroup:x:65534:\n")),
    ];
    for (name, text) in files {
        let inside = root.join("etc").join(name);
        if !inside.is_file() {
            continue;
        }
        let ours = root.join(format!(".{name}"));
        fs::write(&ours, text).step("write accounts")?;
        mount_bind(&ours, &inside).step("bind accounts")?;
        sys::lock_mounts(&sys::c_path(&inside).step("name a mount")?, true)
            .step("make accounts read-only")?;
    }
    Ok(())
}

fn devices(root: &Path, shm_bytes: u64) -> Result<(), WallError> {
    let dev = root.join("dev");
    fs::create_dir_all(&dev).step("make /dev")?;
    tmpfs(&dev, "size=64k,nr_inodes=64,mode=755", MountFlags::NOSUID | MountFlags::NOEXEC)
        .step("mount /dev")?;
    for name in DEVICES {
        let host = Path::new("/dev").join(name);
        if !host.exists() {
            continue;
        }
        fs::write(dev.join(name), "").step("make a device")?;
        let inside = dev.join(name);
        mount_bind(&host, &inside).step("bind a device")?;
        // It is written to all the same; but its mode, owner and times are everybody's.
        sys::lock_device(&sys::c_path(&inside).step("name a mount")?)
            .step("make a device's attributes read-only")?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, dev.join(link)).step("link a device")?;
    }
    let pts = dev.join("pts");
    fs::create_dir(&pts).step("make /dev/pts")?;
    mount(
        "devpts",
        &pts,
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        // The kernel has some thousands for all instances together.
        c"newinstance,ptmxmode=0666,mode=0620,max=64",
    )
    .step("mount /dev/pts")?;
    let shm = dev.join("shm");
    fs::create_dir(&shm).step("make /dev/shm")?;
    tmpfs(&shm, &sized(shm_bytes), MountFlags::NOSUID | MountFlags::NODEV)
        .step("mount /dev/shm")?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount_remount(&dev, flags, c"").step("make /dev read-only")
}

fn sized(bytes: u64) -> String {
    // 0 is "no limit" for tmpfs as well as for us; inodes cost memory that is not in the size.
    format!("size={bytes},nr_inodes=262144,mode=1777")
}

fn private_dirs(root: &Path, birth: &Birth) -> Result<(), WallError> {
    for name in ["tmp", "workspace", "proc", "run", "var", "home", "root"] {
        let path = root.join(name);
        if !path.exists() {
            fs::create_dir(&path).step("make a directory of the root")?;
        }
    }
    symlink("/tmp", root.join("var/tmp")).step("link /var/tmp")?;
    tmpfs(
        &root.join("tmp"),
        &sized(birth.limits.tmp_bytes_max),
        MountFlags::NOSUID | MountFlags::NODEV,
    )
    .step("mount /tmp")?;
    workspace(&root.join(".stage"), root, birth)
}

fn workspace(stage: &Path, root: &Path, birth: &Birth) -> Result<(), WallError> {
    let workspace = root.join("workspace");
    fs::create_dir_all(&workspace).step("make the workspace's place")?;
    if birth.layers.is_empty() {
        mount_bind(birth.workspace(), &workspace).step("bind the workspace")?;
    } else {
        overlay::workspace(stage, birth, &workspace)?;
    }
    sys::lock_mounts(&sys::c_path(&workspace).step("name a mount")?, false)
        .step("lock the workspace's mount")
}

/// The old root goes under the new one and is let go from there: nothing of it stays reachable.
fn pivot(root: &Path, read_only: bool) -> Result<(), WallError> {
    chdir(root).step("enter the root")?;
    pivot_root(".", ".").step("pivot")?;
    unmount(".", UnmountFlags::DETACH).step("let the old root go")?;
    if read_only {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
        mount_remount("/", flags, c"").step("make the root read-only")?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    chdir(PathBuf::from("/workspace")).step("enter the workspace")
}
