//! Filesystems of a test's own, which can be small or lose power. They are mounted, so they need root.
//!
//! Power loss: the filesystem is told to shut down without writing out its journal. From then on everything fails, and what is on the device is
//! what had been synced, as after a power cut; mounted again it shows just that. Deleting nothing and killing processes proves less: what
//! they had written and not synced is still in the kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`, the same number as XFS has for it. No crate of ours may call `ioctl` itself.
const SHUTDOWN: &str =
    r#"open(F, "<", $ARGV[0]) or die "$!"; my $f = pack("L", 2); ioctl(F, 0x8004587d, $f) or die "ioctl: $!""#;

/// A mounted filesystem. Dropping it takes it away.
pub(crate) struct Disk {
    at: PathBuf,
    image: Option<PathBuf>,
}

impl Disk {
    /// A small one in memory; or why there is none.
    pub(crate) fn in_memory(parent: &Path, mib: u64) -> Result<Disk, String> {
        let disk = Disk::new(parent, None)?;
        let size = format!("size={mib}m,mode=0700");
        call(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(&disk.at),
        )?;
        Ok(disk)
    }

    /// One in a file, that can lose power; or why there is none.
    pub(crate) fn in_file(parent: &Path, mib: u64) -> Result<Disk, String> {
        let image = parent.join("disk.img");
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(mib << 20).map_err(|error| error.to_string())?;
        call(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        let disk = Disk::new(parent, Some(image))?;
        disk.mount()?;
        Ok(disk)
    }

    fn new(parent: &Path, image: Option<PathBuf>) -> Result<Disk, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounting needs root".to_owned());
        }
        let at = parent.join("disk");
        std::fs::create_dir(&at).map_err(|error| error.to_string())?;
        Ok(Disk { at, image })
    }

    fn mount(&self) -> Result<(), String> {
        let image = self.image.as_ref().expect("only files are mounted by themselves");
        call(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&self.at))
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Cuts its power. Nothing can be read or written any more.
    pub(crate) fn cut_power(&self) -> Result<(), String> {
        call(Command::new("perl").args(["-e", SHUTDOWN]).arg(&self.at))
    }

    /// Power is back. Nobody may have it open.
    pub(crate) fn power_up(&self) {
        call(Command::new("umount").arg(&self.at)).unwrap();
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is about to end may still have it open. If it is not mounted, nothing happens.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
    }
}

fn call(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
