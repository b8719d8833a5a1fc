//! How much memory a process may use: the one budget that all its jobs share.
//!
//! Operators and DataFusion's own plans account for what they hold in one [`MemoryPool`]. Its size is the setting
//! `memory_limit`, and without one [`SHARE`] of what this process can have at all: the smallest of the machine's memory and
//! the limits of the cgroups it runs in (version 2 `memory.max`, version 1 `memory.limit_in_bytes`).
//!
//! [`MemoryPool`]: datafusion::execution::memory_pool::MemoryPool

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, TrackConsumersPool,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use watershed_core::settings::Settings;
use watershed_core::{Error, Result};

/// The part of the machine or cgroup that is used by default, in percent. The rest is for what is not accounted for:
/// decoded pages on their way, the allocator's slack, the file cache.
pub const SHARE: u64 = 60;

/// What is assumed where neither `/proc/meminfo` nor a cgroup tells: 1 GiB.
const UNKNOWN: u64 = 1 << 30;

/// How many consumers an error of a full pool names.
const NAMED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4);

/// The default of `memory_limit`, in bytes.
pub fn default_limit() -> u64 {
    available(Path::new("/")).unwrap_or(UNKNOWN) / 100 * SHARE
}

/// What a process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) memory: u64,
    pub(crate) spill_dir: Option<String>,
    pub(crate) disk: u64,
}

impl Limits {
    pub(crate) fn of(settings: &Settings) -> Self {
        Limits {
            memory: settings.memory_limit.unwrap_or_else(default_limit),
            spill_dir: settings.spill_dir.clone(),
            disk: settings.disk_limit,
        }
    }
}

/// DataFusion's surroundings with one pool of so many bytes.
pub(crate) fn runtime_env(limits: &Limits) -> Result<Arc<RuntimeEnv>> {
    let limit = usize::try_from(limits.memory).unwrap_or(usize::MAX);
    let pool = TrackConsumersPool::new(GreedyMemoryPool::new(limit), NAMED);
    let mode = match &limits.spill_dir {
        Some(folder) => DiskManagerMode::Directories(vec![PathBuf::from(folder)]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(limits.disk);
    RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_disk_manager_builder(disk).build_arc().map_err(|e| {
        let folder = limits.spill_dir.as_deref().unwrap_or("the folder for temporary files");
        Error::Resources(format!(
            "state cannot be put aside in {folder}: {e}; give a folder that can be written to (spill_dir)"
        ))
    })
}

/// The most that the files of one job are written with, and the part of all memory that those of all may be.
const WRITING: usize = 256 << 20;
const WRITING_PART: usize = 8;

/// Sets aside what the files of one of so many jobs may hold: encoders keep to it, and give it back when the job ends.
pub(crate) fn for_files(job: &str, jobs: usize, pool: &Arc<dyn MemoryPool>) -> MemoryReservation {
    let limit = match pool.memory_limit() {
        MemoryLimit::Finite(limit) => limit,
        _ => usize::MAX,
    };
    let writing = MemoryConsumer::new(format!("{job}, files being written")).register(pool);
    writing.grow((limit / WRITING_PART / jobs.max(1)).min(WRITING));
    writing
}

/// The smallest limit found below `root`, the file system's root except in tests.
fn available(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| machine(&text));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(root, &groups).into_iter();
    let limits = limits.filter_map(|file| fs::read_to_string(file).ok()).filter_map(|text| text.trim().parse().ok());
    limits.chain(machine).filter(|bytes| *bytes > 0).min()
}

/// `MemTotal:       16316412 kB` of `/proc/meminfo`, in bytes.
fn machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Files that may hold a limit: those of our cgroup and of every one above it, for the tightest counts. The file at the
/// top is asked too: inside a container it is the container's own, whatever `/proc/self/cgroup` calls it.
fn limit_files(root: &Path, groups: &str) -> Vec<PathBuf> {
    let mut files = vec![];
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (top, file) = match controllers {
            "" => (root.join("sys/fs/cgroup"), "memory.max"),
            c if c.split(',').any(|c| c == "memory") => (root.join("sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let relative = Path::new(path.trim_start_matches('/'));
        files.extend(relative.ancestors().map(|above| top.join(above).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       2000000 kB\nMemFree:  5 kB\n");

    #[test]
    fn machine_without_cgroup() {
        assert_eq!(available(tree(&[MEMINFO]).path()), Some(2_048_000_000));
        assert_eq!(available(tree(&[]).path()), None);
    }

    #[test]
    fn tightest_cgroup_counts() {
        let unlimited = tree(&[MEMINFO, ("proc/self/cgroup", "0::/a/b\n"), ("sys/fs/cgroup/a/b/memory.max", "max\n")]);
        assert_eq!(available(unlimited.path()), Some(2_048_000_000));
        let above = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "1000000\n"),
            ("sys/fs/cgroup/a/memory.max", "900000\n"),
        ]);
        assert_eq!(available(above.path()), Some(900_000));
        let version_1 = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,memory:/job\n3:pids:/job\n"),
            ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "700000\n"),
        ]);
        assert_eq!(available(version_1.path()), Some(700_000));
        let container =
            tree(&[MEMINFO, ("proc/self/cgroup", "0::/../elsewhere\n"), ("sys/fs/cgroup/memory.max", "600000\n")]);
        assert_eq!(available(container.path()), Some(600_000));
    }
}
