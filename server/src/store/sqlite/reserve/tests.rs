use proptest::prelude::*;

use super::*;

proptest! {
    /// Nothing that protects waits for room that the file has, and the file takes none that issuing needs.
    #[test]
    fn room_is_lent_as_far_as_it_is_missing_and_taken_beyond_what_is_left(free in 0..64 * MIB, kept in 0..=KEPT) {
        let length = lent(free, kept, SLICE);
        let after = free + (kept - length);
        prop_assert_eq!(after, (free + kept).min(SLICE).max(free));
        for leave in [LEFT, SPARE] {
            let length = taken(free, kept, leave);
            prop_assert!((kept..=KEPT).contains(&length));
            prop_assert!(length == kept || free - (length - kept) >= leave);
            prop_assert!(length == KEPT || free - (length - kept) <= leave);
        }
    }
}

#[test]
fn a_folder_on_a_disk_with_room_keeps_some() {
    let folder = signet_testkit::folder();
    let mut reserve = Reserve::of(folder.path());
    assert_eq!(reserve.look(true), Space::Enough);
    let file = fs::metadata(reserve.path()).unwrap();
    assert_eq!((file.len(), file.mode() & 0o777), (KEPT, 0o600));
    assert_eq!(Reserve::of(folder.path()).kept, KEPT);
}

#[test]
fn a_file_with_holes_keeps_nothing_until_they_are_filled() {
    let folder = signet_testkit::folder();
    let path = folder.path().join("signet.reserve");
    File::create(&path).unwrap().set_len(KEPT).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().blocks(), 0);
    let mut reserve = Reserve::of(folder.path());
    assert_eq!(reserve.look(false), Space::Enough);
    assert!(fs::metadata(&path).unwrap().blocks() * 512 >= KEPT);
}

mod needs_namespaces {
    use nix::mount::{MsFlags, mount};
    use signet_testkit::machine::has_own_mounts;

    use super::*;
    use crate::store::sqlite::SqliteStore;
    use crate::store::suite::fixture::{at, authority, by_id, crl, issuance, revocation, trust_domain};
    use crate::store::{Ledger as _, Lists as _, Revocations as _, Store as _, StoredCrl};

    fn open(folder: &Path) -> SqliteStore {
        SqliteStore::open(folder, &trust_domain()).unwrap()
    }

    fn fill(folder: &Path) -> PathBuf {
        use std::io::Write as _;
        let path = folder.join("filler");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }

    /// For as long as the disk stays full: the longest lists, one after the other, and revocations between them.
    #[test]
    #[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
    fn a_full_disk_takes_lists_and_revocations_without_end() {
        let test = "a_full_disk_takes_lists_and_revocations_without_end";
        if has_own_mounts(&format!(
            "store::sqlite::reserve::tests::needs_namespaces::{test}"
        )) {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(takes_lists_and_revocations());
        }
    }

    async fn takes_lists_and_revocations() {
        let folder = signet_testkit::folder();
        let none = MsFlags::empty();
        mount(
            Some("tmpfs"),
            folder.path(),
            Some("tmpfs"),
            none,
            Some("size=48m,mode=0700"),
        )
        .unwrap();
        let mut store = open(folder.path());
        // As much as the log takes before it is emptied.
        for _ in 0..20 {
            let batch = (0..500).map(|_| issuance("/a", "one", at(0))).collect();
            store.issue(batch, at(0)).await.unwrap();
        }
        let filler = fill(folder.path());
        for number in 1..=40_u64 {
            if number == 20 {
                drop(store);
                // Whatever others left.
                drop(fill(folder.path()));
                store = open(folder.path());
            }
            // Whatever was left to others they take.
            fill(folder.path());
            let list = StoredCrl {
                der: vec![u8::try_from(number).unwrap(); 3 << 20].into(),
                ..crl(number, &store.revoked(authority(1)).await.unwrap(), at(number))
            };
            store
                .save_crl(list)
                .await
                .unwrap_or_else(|error| panic!("list {number}: {error}"));
            let revoked = store
                .revoke(revocation(by_id(&format!("/x/{number}")), at(number)))
                .await;
            revoked.unwrap_or_else(|error| panic!("revocation {number}: {error}"));
            let refused = store
                .issue(vec![issuance("/a", "one", at(0))], at(0))
                .await
                .unwrap_err()
                .to_string();
            let place = folder.path().display().to_string();
            assert!(
                refused.contains(&place) && refused.contains("free at least"),
                "{refused}"
            );
        }
        fs::remove_file(filler).unwrap();
        drop(fs::remove_file(folder.path().join("filler")));
        store.probe().await.unwrap();
        store
            .issue(vec![issuance("/a", "one", at(0))], at(0))
            .await
            .unwrap();
    }
}
