//! How much memory the process may use, how much it uses, and how that is shared out.
//!
//! The limit is a setting, or what the cgroups of the process allow. It only reads: who is let in is
//! decided in `application::admission`, and what each budget means stands where it is spent.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the system says which cgroups this process is in, and where they are mounted.
const OWN_GROUPS: &str = "/proc/self/cgroup";
const OWN_MOUNTS: &str = "/proc/self/mountinfo";
/// A limit of this size is none: version 1 writes the largest number of pages for that.
const NO_LIMIT: u64 = 1 << 60;

/// A limit, and whose memory counts against it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemoryLimit {
    /// The most bytes.
    pub bytes_max: u64,
    measure: Measure,
}

/// Whose memory counts.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Measure {
    /// What this process has in memory.
    Process,
    /// What a cgroup uses, in its folder.
    Group(Version, PathBuf),
}

/// Of cgroups.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Version {
    One,
    Two,
}

impl Version {
    const fn limit_file(self) -> &'static str {
        match self {
            Self::One => "memory.limit_in_bytes",
            Self::Two => "memory.max",
        }
    }

    const fn usage_file(self) -> &'static str {
        match self {
            Self::One => "memory.usage_in_bytes",
            Self::Two => "memory.current",
        }
    }

    /// The row of `memory.stat` with the files that the system lets go of before it kills anybody.
    const fn reclaimable_row(self) -> &'static str {
        match self {
            Self::One => "total_inactive_file ",
            Self::Two => "inactive_file ",
        }
    }
}

impl MemoryLimit {
    /// The limit that counts: the setting, or with 0 the smallest one of the process's cgroups.
    #[must_use]
    pub fn find(setting: u64) -> Option<Self> {
        if setting > 0 {
            return Some(Self { bytes_max: setting, measure: Measure::Process });
        }
        let groups = fs::read_to_string(OWN_GROUPS).ok()?;
        let mounts = fs::read_to_string(OWN_MOUNTS).ok()?;
        let of_versions = [Version::Two, Version::One].into_iter();
        let limits = of_versions.filter_map(|version| {
            let (mount, group) = folder(version, &groups, &mounts)?;
            smallest(version, &mount, &group)
        });
        limits.min_by_key(|limit| limit.bytes_max)
    }

    /// How many bytes count against it now; none when the system does not say.
    #[must_use]
    pub fn used_bytes(&self) -> Option<u64> {
        match &self.measure {
            Measure::Process => resident_bytes(&fs::read_to_string("/proc/self/status").ok()?),
            Measure::Group(version, folder) => {
                let used = number(&folder.join(version.usage_file()))?;
                // The rows are dear to make on a large machine, and matter only near the limit.
                if used < self.bytes_max / 2 {
                    return Some(used);
                }
                let rows = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
                Some(used.saturating_sub(row(&rows, version.reclaimable_row()).unwrap_or(0)))
            }
        }
    }

    /// Whose memory counts, for the log.
    #[must_use]
    pub fn source(&self) -> String {
        match &self.measure {
            Measure::Process => "server.memory_bytes_max".to_owned(),
            Measure::Group(_, folder) => folder.display().to_string(),
        }
    }
}

/// Where a version's hierarchy for memory is mounted, and the folder of this process's group in it.
fn folder(version: Version, groups: &str, mounts: &str) -> Option<(PathBuf, PathBuf)> {
    // 4:memory:/a/b in version 1, 0::/a/b in version 2.
    let of_memory = |line: &&str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next().unwrap_or_default();
        match version {
            Version::One => controllers.split(',').any(|name| name == "memory"),
            Version::Two => controllers.is_empty(),
        }
    };
    let group = groups.lines().find(of_memory)?.splitn(3, ':').nth(2)?;
    // 36 35 0:30 /root /mount/point rw,… shared:1 - cgroup2 source rw,memory
    let (root, mount) = mounts.lines().find_map(|line| {
        let (before, behind) = line.split_once(" - ")?;
        let mut behind = behind.split(' ');
        let is_it = match version {
            Version::One => {
                behind.next() == Some("cgroup")
                    && behind.nth(1)?.split(',').any(|name| name == "memory")
            }
            Version::Two => behind.next() == Some("cgroup2"),
        };
        let mut before = before.split(' ').skip(3);
        is_it.then_some((before.next()?, before.next()?))
    })?;
    let mount = PathBuf::from(mount);
    // A container may see only its own part of the tree, under its whole name.
    let below = Path::new(group).strip_prefix(root).unwrap_or_else(|_| Path::new(""));
    let group = mount.join(below);
    Some((mount, group))
}

/// The smallest limit from a group up to where its hierarchy is mounted.
fn smallest(version: Version, mount: &Path, group: &Path) -> Option<MemoryLimit> {
    let upwards = group.ancestors().take_while(|folder| folder.starts_with(mount));
    let limits = upwards.filter_map(|folder| {
        // "max" in version 2 is no number.
        let bytes_max = number(&folder.join(version.limit_file()))?;
        let measure = Measure::Group(version, folder.to_owned());
        (bytes_max < NO_LIMIT).then_some(MemoryLimit { bytes_max, measure })
    });
    limits.min_by_key(|limit| limit.bytes_max)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn row(rows: &str, name: &str) -> Option<u64> {
    let row = rows.lines().find_map(|line| line.strip_prefix(name))?;
    row.trim().trim_end_matches(" kB").parse().ok()
}

/// From proc_pid_status(5).
fn resident_bytes(status: &str) -> Option<u64> {
    let kib = row(status, "VmRSS:")?;
    Some(kib * 1_024)
}

/// What may be used for what. Each is as large as ever where memory is not limited or there is
/// plenty; together they take somewhat more than half of a small one, and leave the rest to the
/// connections themselves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budgets {
    /// What may wait for all slow clients together.
    pub outbound_bytes: usize,
    /// What may wait for one worker.
    pub mailbox_bytes: usize,
    /// What the logs of all rooms may keep.
    pub log_bytes: usize,
    /// What may wait for the archive.
    pub commit_bytes: usize,
    /// How many publishes are remembered by their `msg_id`.
    pub dedup_entries: usize,
    /// How many workers share it.
    pub n_workers: usize,
}

impl Budgets {
    /// `most` where there is plenty, else shares of `limit`.
    #[must_use]
    pub fn of(limit: Option<&MemoryLimit>, most: &Self) -> Self {
        let Some(limit) = limit else { return *most };
        let share = |parts: usize, most: usize| {
            usize::try_from(limit.bytes_max).unwrap_or(usize::MAX).div_euclid(parts).min(most)
        };
        Self {
            outbound_bytes: share(8, most.outbound_bytes),
            mailbox_bytes: share(8 * most.n_workers.max(1), most.mailbox_bytes),
            log_bytes: share(4, most.log_bytes),
            commit_bytes: share(16, most.commit_bytes),
            // An entry takes some 150 bytes.
            dedup_entries: share(2_048, most.dedup_entries),
            n_workers: most.n_workers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        25 30 0:22 / /proc rw,nosuid - proc proc rw\n\
        34 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        35 31 0:30 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
        36 31 0:31 /docker/ab /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_group_of_this_process_is_found_in_both_versions() {
        let groups = "9:name=systemd:/\n4:cpu:/x\n3:memory:/own/part\n0::/docker/ab/inner\n";
        let found = |version| folder(version, groups, MOUNTS).map(|(_, group)| group);
        assert_eq!(found(Version::One), Some("/sys/fs/cgroup/memory/own/part".into()));
        assert_eq!(found(Version::Two), Some("/sys/fs/cgroup/unified/inner".into()));
        // With a name that the mount does not show, the whole of what it shows counts.
        let outside = folder(Version::Two, "0::/../elsewhere\n", MOUNTS).unwrap();
        assert_eq!(outside.1, Path::new("/sys/fs/cgroup/unified/"));
        assert_eq!(folder(Version::One, "0::/\n", MOUNTS), None);
        assert_eq!(folder(Version::Two, "0::/\n", "25 30 0:22 / /proc rw - proc proc rw\n"), None);
    }

    #[test]
    fn the_smallest_limit_up_to_the_mount_counts_and_max_is_none() {
        let mount = tempfile::tempdir().unwrap();
        let group = mount.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        let write = |folder: &Path, file: &str, text: &str| {
            fs::write(folder.join(file), text).unwrap();
        };
        let find = |version| smallest(version, mount.path(), &group);
        assert_eq!(find(Version::Two), None);
        write(&group, "memory.max", "max\n");
        write(&group.join(".."), "memory.max", "1000\n");
        write(mount.path(), "memory.max", "2000\n");
        let limit = find(Version::Two).unwrap();
        assert_eq!(limit.bytes_max, 1_000);
        write(&mount.path().join("a"), "memory.current", "499\n");
        assert_eq!(limit.used_bytes(), Some(499));
        write(&mount.path().join("a"), "memory.current", "900\n");
        assert_eq!(limit.used_bytes(), Some(900));
        write(&mount.path().join("a"), "memory.stat", "anon 1\ninactive_file 300\n");
        assert_eq!(limit.used_bytes(), Some(600));
        write(&group, "memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(find(Version::One), None);
        write(&group, "memory.limit_in_bytes", "4096\n");
        assert_eq!(find(Version::One).map(|limit| limit.bytes_max), Some(4_096));
    }

    #[test]
    fn a_number_that_is_set_counts_instead_of_the_groups_and_is_of_this_process() {
        let limit = MemoryLimit::find(1 << 30).unwrap();
        assert_eq!(limit.bytes_max, 1 << 30);
        let used = limit.used_bytes().unwrap();
        assert!((1 << 20..1 << 30).contains(&used), "{used}");
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }

    /// R11: the budgets alone leave almost half of a small memory.
    #[test]
    fn budgets_are_shares_of_a_small_memory_and_as_ever_in_a_large_one() {
        let most = Budgets {
            outbound_bytes: 256 << 20,
            mailbox_bytes: 64 << 20,
            log_bytes: 512 << 20,
            commit_bytes: 32 << 20,
            dedup_entries: 1_000_000,
            n_workers: 2,
        };
        assert_eq!(Budgets::of(None, &most), most);
        let of = |bytes_max| {
            let limit = MemoryLimit { bytes_max, measure: Measure::Process };
            Budgets::of(Some(&limit), &most)
        };
        assert_eq!(of(64 << 30), most);
        let small = of(256 << 20);
        let dedup_bytes = small.dedup_entries * 150;
        let together = small.outbound_bytes
            + 2 * small.mailbox_bytes
            + small.log_bytes
            + small.commit_bytes
            + dedup_bytes;
        assert!(together < (256 << 20) * 13 / 20, "{together}");
    }
}
