//! Records on disk.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

fn record() -> VolumeRecord {
    VolumeRecord {
        volume_id: "csi-4c42402ee0596c0b077d8aec2bbf79e475066435b06d33f95f679492ef29f94d".into(),
        pod_uid: "dd4cbb08".into(),
        namespace: "shop".into(),
        name: "csi-0".into(),
        service_account: "frontend".into(),
        target: "/var/lib/kubelet/pods/dd4cbb08/volumes/kubernetes.io~csi/spiffe/mount".into(),
    }
}

fn token(text: &str) -> Arc<PodToken> {
    PodToken::new(text, signet_testkit::now())
}

fn keep(volumes: &mut Volumes, record: &VolumeRecord, text: &str) {
    volumes.keep(record).unwrap();
    volumes.keep_token(&record.volume_id, &token(text));
}

#[test]
fn volumes_and_their_newest_tokens_survive_a_restart() {
    let dir = signet_testkit::folder();
    let path = dir.path().join("volumes");
    let mut volumes = Volumes::open(&path).unwrap();
    keep(&mut volumes, &record(), "first");
    let inode = fs::metadata(volumes.socket_dir(&record().volume_id))
        .unwrap()
        .ino();
    keep(&mut volumes, &record(), "second");

    let again = Volumes::open(&path).unwrap();
    let all = again.all();
    assert_eq!(all[0].0, record());
    let kept = all[0].1.as_ref().unwrap();
    assert_eq!(kept.secret(), "second");
    assert_eq!(kept.expires(), token("second").expires());
    assert_eq!(
        fs::metadata(again.socket_dir(&record().volume_id)).unwrap().ino(),
        inode,
        "mounted directory kept"
    );
}

/// Istio's proxies find the socket wherever the volume is mounted, also in one of a former version.
#[test]
fn the_sockets_other_name_leads_to_it_wherever_the_folder_is() {
    let dir = signet_testkit::folder();
    let mut volumes = Volumes::open(&dir.path().join("volumes")).unwrap();
    for _ in 0..2 {
        keep(&mut volumes, &record(), "token");
        let socket = volumes.socket_path(&record().volume_id);
        let elsewhere = dir.path().join("mounted");
        fs::rename(volumes.socket_dir(&record().volume_id), &elsewhere).unwrap();
        fs::write(elsewhere.join(SOCKET_NAME), "here").unwrap();
        assert_eq!(fs::read(elsewhere.join("socket")).unwrap(), b"here");
        fs::remove_file(elsewhere.join("socket")).unwrap();
        fs::rename(&elsewhere, socket.parent().unwrap()).unwrap();
    }
}

#[test]
fn only_root_reads_tokens_and_every_uid_reaches_the_socket_directory() {
    let dir = signet_testkit::folder();
    let mut volumes = Volumes::open(&dir.path().join("volumes")).unwrap();
    keep(&mut volumes, &record(), "secret");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = volumes.folder(&record().volume_id);
    assert_eq!(mode(&dir.path().join("volumes")), 0o700);
    assert_eq!(mode(&folder.join("token.json")), 0o600);
    assert_eq!(mode(&folder.join("record.json")), 0o600);
    assert_eq!(mode(&volumes.socket_dir(&record().volume_id)), 0o755);
}

#[test]
fn removing_twice_is_fine_and_damage_is_left_alone() {
    let dir = signet_testkit::folder();
    let mut volumes = Volumes::open(dir.path()).unwrap();
    keep(&mut volumes, &record(), "x");
    let record_file = volumes.folder(&record().volume_id).join("record.json");
    fs::write(&record_file, b"{").unwrap();
    assert!(Volumes::open(dir.path()).unwrap().all().is_empty());
    assert!(record_file.exists());
    volumes.remove(&record().volume_id).unwrap();
    volumes.remove(&record().volume_id).unwrap();
    assert!(!record_file.exists());
}

#[test]
fn the_socket_path_is_short_enough_where_agents_run() {
    let volumes = Volumes {
        dir: "/run/signet-agent/volumes".into(),
        volumes: BTreeMap::new(),
    };
    assert!(volumes.socket_path(&record().volume_id).as_os_str().len() <= 107);
}

/// A person is told until the pod is gone, whatever becomes of the agent.
#[test]
fn that_a_pod_is_cut_off_outlives_a_restart_and_not_the_volume() {
    let dir = signet_testkit::folder();
    let mut volumes = Volumes::open(dir.path()).unwrap();
    keep(&mut volumes, &record(), "x");
    assert_eq!(volumes.number_cut_off(), 0);
    volumes.cut_off(&record().volume_id);
    let mut again = Volumes::open(dir.path()).unwrap();
    assert!(again.is_cut_off(&record().volume_id));
    assert_eq!(again.keep(&record()).unwrap(), Folder::Before);
    assert_eq!(again.number_cut_off(), 1);
    again.remove(&record().volume_id).unwrap();
    assert_eq!(again.keep(&record()).unwrap(), Folder::Made);
    assert_eq!(Volumes::open(dir.path()).unwrap().number_cut_off(), 0);
}

/// A token that was put into the wrong folder would get its socket another pod's identity.
#[test]
fn a_kept_token_of_another_pod_is_not_used() {
    let of_pod_1 = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwczovL2siLCJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6czphIiwiYXVkIjpb\
        InNpZ25ldDpleGFtcGxlLm9yZzpub2RlIl0sImV4cCI6MTgwMDAwMzYwMCwiaWF0IjoxODAwMDAwMDAwLCJuYmYiOjE4MDAwMDAwMDAsImp0aSI6ImoiLCJrd\
        WJlcm5ldGVzLmlvIjp7Im5hbWVzcGFjZSI6InMiLCJub2RlIjp7Im5hbWUiOiJuIiwidWlkIjoidSJ9LCJwb2QiOnsibmFtZSI6InAiLCJ1aWQiOiJwb2QtMSJ9L\
        CJzZXJ2aWNlYWNjb3VudCI6eyJuYW1lIjoiYSIsInVpZCI6IngifX19.AAAA";
    for (uid, used) in [("pod-1", true), ("pod-2", false)] {
        let dir = signet_testkit::folder();
        let mut volumes = Volumes::open(&dir.path().join("volumes")).unwrap();
        let record = VolumeRecord {
            pod_uid: uid.into(),
            ..record()
        };
        keep(&mut volumes, &record, of_pod_1);
        assert_eq!(volumes.all()[0].1.is_some(), used, "{uid}");
    }
}
