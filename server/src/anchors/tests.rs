use std::os::unix::fs::PermissionsExt as _;

use signet_certs::authority::AuthorityId;
use signet_certs::svid::SvidProfile;

use super::*;
use crate::authority::{Order, OrderRequest, Stage};
use crate::fixtures::{HOUR, MINUTE, Running, SKEW, trust_domain};
use crate::own_svid::{OwnSvidParts, keep_own_svids};

const CONTROL: AuthorityKind = AuthorityKind::Control;

fn read(path: &Path) -> AnchorsFile {
    AnchorsFile::parse(&std::fs::read(path).unwrap()).unwrap()
}

fn names(file: &AnchorsFile) -> (Vec<AuthorityId>, Vec<AuthorityId>) {
    let certificates = file.certificates().iter().map(|one| one.id());
    (
        certificates.collect(),
        file.distrusted().iter().copied().collect(),
    )
}

async fn kept(running: &Running, path: &Path) -> Result<(), AnchorsError> {
    let (view, firsts) = (running.manager.current(), running.firsts.clone());
    keep(path.to_owned(), view, firsts, &running.drain).await
}

fn emergency() -> OrderRequest {
    OrderRequest {
        kind: CONTROL,
        order: Order::Emergency { algorithm: None },
        author: "admin".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn the_file_holds_control_certificates_only_and_is_replaced_whole() {
    let running = Running::new().await;
    let directory = signet_testkit::folder();
    let path = directory.path().join("anchors.pem");
    for _ in 0..2 {
        kept(&running, &path).await.unwrap();
        assert_eq!(names(&read(&path)), (vec![running.active(CONTROL)], vec![]));
    }
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    let blocked = path.join("anchors.pem");
    let refused = kept(&running, &blocked).await.unwrap_err().to_string();
    assert!(refused.contains("anchors.pem/anchors.pem"), "{refused}");
}

/// The file first, then the server's own certificate, then the bundle; a new start writes the file before it serves anything.
#[tokio::test(start_paused = true)]
async fn in_an_emergency_agents_find_in_the_file_whom_not_to_believe_before_they_are_told_anything() {
    let running = Running::new().await;
    let directory = signet_testkit::folder();
    let path = directory.path().join("anchors.pem");
    kept(&running, &path).await.unwrap();
    let profile = SvidProfile {
        ttl: HOUR,
        clock_skew: SKEW,
        crl_base_url: None,
    };
    let own = keep_own_svids(OwnSvidParts {
        trust_domain: trust_domain(),
        server: profile,
        bundle: None,
        store: running.store.clone(),
        view: running.manager.current(),
        snapshots: running.publisher.snapshots(),
        firsts: running.firsts.clone(),
        clock: running.trusted.clone(),
        drain: running.drain.clone(),
    });
    let _own = own.await.unwrap();
    let stolen = running.active(CONTROL);
    let mut snapshots = running.publisher.snapshots();
    snapshots.mark_unchanged();
    let mut steps = running.manager.order(emergency()).await.unwrap();
    snapshots.changed().await.unwrap();
    let new = running.active(CONTROL);
    assert_ne!(new, stolen);
    assert_eq!(names(&read(&path)), (vec![new], vec![stolen]));
    assert_eq!(running.firsts.borrow().own, Some(new));
    assert!(snapshots.borrow().get(stolen).unwrap().tainted);

    std::fs::remove_file(&path).unwrap();
    running.pass(MINUTE).await;
    let running = running.restart().await;
    kept(&running, &path).await.unwrap();
    assert_eq!(names(&read(&path)), (vec![new], vec![stolen]));
    running.pass(3 * MINUTE).await;
    assert!(running.snapshot().get(stolen).is_none());
    assert_eq!(
        names(&read(&path)),
        (vec![new], vec![stolen]),
        "it stays distrusted"
    );
    let number = steps.next().await.unwrap().operation.number;
    let ended = running.manager.follow(CONTROL, number).next().await.unwrap();
    assert_eq!(ended.operation.stage, Stage::Done, "there is no agent");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_takes_out_of_the_file_comes_back_and_what_he_distrusts_stays() {
    let running = Running::new().await;
    let directory = signet_testkit::folder();
    let path = directory.path().join("anchors.pem");
    kept(&running, &path).await.unwrap();
    let written = std::fs::read_to_string(&path).unwrap();
    for others in ["", "nonsense", "-----BEGIN CERTIFICATE-----\n", "/dev/zero"] {
        std::fs::remove_file(&path).unwrap();
        match others.starts_with('/') {
            true => std::os::unix::fs::symlink(others, &path).unwrap(),
            false => std::fs::write(&path, others).unwrap(),
        }
        running.pass(2 * LOOK_EVERY).await;
        let again = async {
            while path.is_symlink() || std::fs::read_to_string(&path).unwrap() != written {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(10 * MINUTE, again).await.unwrap();
    }
    let more = format!("distrusted: {}\n{written}", "0a".repeat(20));
    std::fs::write(&path, &more).unwrap();
    running.pass(3 * LOOK_EVERY).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), more);
}

/// Whoever is connected hears at least from the server that he is connected to.
#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_holds_the_bundle_up_for_five_seconds() {
    let running = Running::new().await;
    let mut snapshots = running.publisher.snapshots();
    snapshots.mark_unchanged();
    let begun = tokio::time::Instant::now();
    running.manager.order(emergency()).await.unwrap();
    snapshots.changed().await.unwrap();
    let held = begun.elapsed();
    assert!((5..7).contains(&held.as_secs()), "{held:?}");
}
