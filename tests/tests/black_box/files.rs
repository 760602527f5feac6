//! `fetch x509 --write`: files that belong together, whoever writes them at the same time, and whoever is killed.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use ring::rand::SystemRandom;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use signet_certs::{bundle::parse_pem_certificates, signer::LeafKey, svid::X509Svid};
use signet_tests::{
    domain::{Agent, Domain},
    process::{binary, run},
};

use super::support::pod_with_volume;

const NAMES: [&str; 5] = [
    "svid.pem",
    "svid_key.pem",
    "svid_with_key.pem",
    "bundle.pem",
    "crl.pem",
];

/// A domain with two pods that have their identities, and their sockets as addresses.
async fn two_identities() -> (Domain, Agent, [String; 2]) {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let mut sockets = Vec::new();
    for name in ["front", "back"] {
        let volume = pod_with_volume(&domain, &agent, name).await;
        agent.workload(&volume).identity().await;
        sockets.push(format!("unix://{}", agent.socket(&volume).display()));
    }
    (domain, agent, sockets.try_into().unwrap())
}

/// The SVID that the folder's one link leads to, resolved once. Panics when its parts do not fit.
fn fitting(directory: &Path) -> X509Svid {
    let data = File::open(directory.join("..data")).unwrap();
    let through = PathBuf::from(format!("/proc/self/fd/{}", data.as_raw_fd()));
    let [chain, key, both, bundle, crl] = NAMES.map(|name| fs::read_to_string(through.join(name)).unwrap());
    assert_eq!(both, [chain.as_str(), key.as_str()].concat());
    assert!(bundle.starts_with("-----BEGIN ") && crl.starts_with("-----BEGIN "));
    let pkcs8 = match PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap() {
        PrivateKeyDer::Pkcs8(pkcs8) => pkcs8.secret_pkcs8_der().to_vec().into(),
        other => panic!("{other:?}"),
    };
    let key = LeafKey::from_pkcs8(pkcs8, &SystemRandom::new()).unwrap();
    let chain = parse_pem_certificates(&chain).unwrap();
    X509Svid::new(chain.into_iter().map(|der| der.to_vec()).collect(), key).unwrap()
}

/// What is in the folder beside the names that are always there, all of which lead through the one link.
fn generations(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut listed: BTreeSet<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(listed.remove("..data") && listed.remove("..lock"), "{listed:?}");
    for name in NAMES {
        let link = fs::read_link(directory.join(name)).unwrap();
        assert_eq!(link, Path::new("..data").join(name));
        assert!(listed.remove(name), "{listed:?}");
    }
    listed.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_writers_of_two_identities_leave_no_moment_in_which_the_files_do_not_fit() {
    let (domain, _agent, sockets) = two_identities().await;
    let folder = domain.path().join("written");
    let target = folder.to_str().unwrap();
    // So many at once take their turns behind the tests beside this one.
    let program = binary("signet-agent");
    let nice = ["-n", "19", program.to_str().unwrap()];
    let fetch = async |socket: &str| {
        let command = ["fetch", "x509", "--socket", socket, "--write", target];
        let args = nice.into_iter().chain(command);
        run(Path::new("nice"), args, &[]).await.unwrap()
    };
    let first = fetch(&sockets[0]).await;
    assert!(first.status.success(), "{}", first.stderr);

    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                seen.insert(fitting(&folder).spiffe_id().to_string());
                std::thread::park_timeout(Duration::from_millis(1));
            }
            seen
        });
        let writers = (0..50).map(|number| fetch(&sockets[number % 2]));
        let ended =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(join_all(writers)));
        done.store(true, Ordering::Relaxed);
        for writer in ended {
            assert!(writer.status.success(), "{}", writer.stderr);
        }
        reader.join().unwrap()
    });
    assert_eq!(seen.len(), 2, "{seen:?}");
    fitting(&folder);
    let left = generations(&folder);
    assert!(
        left.iter().all(|name| name[2..].parse::<u64>().is_ok()),
        "nothing but sets: {left:?}"
    );
}

/// Each writer is killed as soon as the folder changes, so in the middle of its work.
#[tokio::test]
async fn nothing_stays_of_writers_that_were_killed() {
    let (domain, agent, sockets) = two_identities().await;
    let folder = domain.path().join("written");
    let target = folder.to_str().unwrap();
    let args = [
        "fetch",
        "x509",
        "--socket",
        sockets[0].as_str(),
        "--write",
        target,
    ];
    assert!(agent.command(&args).await.unwrap().status.success());
    let listed = || fs::read_dir(&folder).unwrap().count();
    for _ in 0..10 {
        let mut writer = Command::new(binary("signet-agent"))
            .args(args)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let before = listed();
        while listed() == before && writer.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        fitting(&folder);
    }
    assert!(agent.command(&args).await.unwrap().status.success());
    fitting(&folder);
    for name in generations(&folder) {
        assert!(name[2..].parse::<u64>().is_ok(), "{name} was left");
        let files = fs::read_dir(folder.join(&name)).unwrap().count();
        assert_eq!(files, NAMES.len(), "{name} is no whole set");
    }
}

/// What runs `program` so that a closed folder is closed to it: nothing is to root as it is.
fn open_to_nobody(program: &str) -> (&str, Vec<&str>) {
    if nix::unistd::getuid().is_root() {
        (
            "setpriv",
            vec!["--bounding-set", "-dac_override,-dac_read_search", program],
        )
    } else {
        (program, Vec::new())
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named_with_what_to_do() {
    let (domain, _agent, sockets) = two_identities().await;
    let file = domain.path().join("file");
    fs::write(&file, "").unwrap();
    let closed = domain.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let make = "cannot make the directory";
    for (target, cannot) in [
        (file.join("below"), make),
        (PathBuf::from("/proc/below"), make),
        (closed, "cannot open the lock of the folder"),
    ] {
        let target = target.to_str().unwrap();
        let args = ["fetch", "x509", "--socket", &sockets[0], "--write", target];
        let program = binary("signet-agent");
        let (first, more) = open_to_nobody(program.to_str().unwrap());
        let ended = run(Path::new(first), [more.as_slice(), &args].concat(), &[])
            .await
            .unwrap();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        for words in [target, cannot, "choose another directory"] {
            assert!(ended.stderr.contains(words), "{}", ended.stderr);
        }
    }
}
