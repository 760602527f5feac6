//! What every unit owes to whoever installs it.

use std::fs;
use std::path::PathBuf;

use signet_tests::repository::root;

/// The units, with the bound of their program's end in seconds: its own, and two more after which it is gone whatever is stuck.
const UNITS: [(&str, u64); 3] = [
    ("signet-server", 20 + 2),
    ("signet-agent", 10 + 2),
    ("signet-agent-csi", 10 + 2),
];

/// A sample for what people have of their own, among the examples.
pub(crate) const SAMPLE: &str = "signet-files";

/// Where the file of a unit is.
pub(crate) fn path(unit: &str) -> PathBuf {
    let folder = if unit == SAMPLE {
        "examples/systemd"
    } else {
        "systemd"
    };
    root().join(format!("deploy/{folder}/{unit}.service"))
}

/// What a unit says, without its comments, and the comments.
pub(crate) fn read(unit: &str) -> (Vec<(String, String)>, String) {
    let text = fs::read_to_string(path(unit)).unwrap();
    let (comments, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
    let settings = lines.iter().filter_map(|line| line.split_once('='));
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    (settings.collect(), comments.join("\n"))
}

fn all<'a>(settings: &'a [(String, String)], key: &str) -> Vec<&'a str> {
    let of_key = settings.iter().filter(|(name, _)| name == key);
    of_key.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn every_unit_is_told_how_its_program_is_and_gives_it_time_to_end() {
    let mut files = fs::read_dir(root().join("deploy/systemd")).unwrap();
    let services = files.by_ref().filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".service")
    });
    assert_eq!(services.count(), UNITS.len());
    for (unit, ends_within) in UNITS {
        let (settings, _) = read(unit);
        for (key, value) in [
            ("Type", "notify"),
            ("NotifyAccess", "main"),
            ("Restart", "always"),
            // It must not be given up because it was tried too often, nor loop over what only a person can mend.
            ("StartLimitIntervalSec", "0"),
            ("RestartPreventExitStatus", "78"),
            ("LimitCORE", "0"),
            ("UMask", "0077"),
            ("WantedBy", "multi-user.target"),
        ] {
            assert_eq!(all(&settings, key), [value], "{unit}: {key}");
        }
        let stop: u64 = all(&settings, "TimeoutStopSec")[0]
            .trim_end_matches('s')
            .parse()
            .unwrap();
        assert!(stop > ends_within, "{unit}: {stop} s");
        // docs/operating.md: with these each door has all that it can use.
        let files: u64 = all(&settings, "LimitNOFILE")[0].parse().unwrap();
        assert!(files >= 28_300, "{unit}: {files}");
    }
}

/// Whoever waits for files says so himself, and not for ever.
#[test]
fn no_boot_hangs_on_files_that_do_not_come() {
    let (settings, _) = read(SAMPLE);
    assert_eq!(all(&settings, "Before"), [""; 0]);
    let start = all(&settings, "TimeoutStartSec")[0].trim_end_matches('s');
    assert!(start.parse::<u64>().unwrap() <= 90, "{start}");
}

/// What an agent keeps for its next start is what makes a restart cost nothing, and pods hold what is in that folder.
#[test]
fn the_stop_of_an_agent_leaves_its_folder_in_run() {
    for unit in ["signet-agent", "signet-agent-csi"] {
        let (settings, _) = read(unit);
        assert_eq!(all(&settings, "RuntimeDirectory"), ["signet-agent"]);
        assert_eq!(all(&settings, "RuntimeDirectoryPreserve"), ["yes"]);
        // With it the sockets would lie where nobody else comes.
        assert_eq!(all(&settings, "DynamicUser"), [""; 0]);
    }
}

/// Each of them gives the agent a mount namespace, out of which no mount comes to kubelet and pods.
#[test]
fn the_agent_that_mounts_does_it_where_others_see_it() {
    let (settings, comments) = read("signet-agent-csi");
    for key in [
        "PrivateTmp",
        "PrivateDevices",
        "PrivateIPC",
        "PrivateMounts",
        "PrivateNetwork",
        "PrivateUsers",
        "ProtectSystem",
        "ProtectHome",
        "ProtectProc",
        "ProcSubset",
        "ProtectControlGroups",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "RootDirectory",
    ] {
        assert_eq!(all(&settings, key), [""; 0], "{key}");
        assert!(comments.contains(key), "the unit does not say why {key} is open");
    }
}
