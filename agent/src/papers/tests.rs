use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use signet_certs::authority::X509Authority;
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;
use signet_certs::svid::X509Svid;
use signet_certs::verify::TrustedAuthority;
use signet_testkit::{DOMAIN, HOUR, authority, crl, now, svid};

use super::*;
use crate::files::Layout;

/// A folder as `write` leaves it, with a list that names these serials.
fn written(
    folder: &Path,
    authority: &X509Authority,
    svid: &X509Svid,
    revoked: &[SerialNumber],
    files: &[&str],
) {
    let trusted = TrustedAuthority {
        certificate: authority.certificate().clone(),
        crl: Some(crl(authority, 7, revoked)),
    };
    let layout = match files {
        [] => Layout::default(),
        files => Layout::of(files.iter().map(|file| file.parse().unwrap()).collect()).unwrap(),
    };
    let _ = layout.fill(svid, &[trusted]).write(folder).unwrap();
}

fn kinds(found: &[Found]) -> Vec<&'static str> {
    found.iter().map(|found| found.paper.kind()).collect()
}

fn judged(svid: &[Found], bundle: &[Found], id: Option<&SpiffeId>) -> Result<(), String> {
    let asked = Asked {
        svid,
        bundle,
        lists: true,
        id,
    };
    verify(&asked, now()).map(drop)
}

#[test]
fn a_set_is_told_in_pem_and_in_der_and_no_key_is_shown() {
    let folder = signet_testkit::folder();
    let (authority, path) = (authority(DOMAIN), folder.path());
    let svid = svid(&authority, "/ns/a/sa/b");
    written(&path.join("pem"), &authority, &svid, &[], &[]);
    let found = read(&path.join("pem")).unwrap();
    assert_eq!(kinds(&found), ["authority", "crl", "svid", "key", "svid", "key"]);
    assert_eq!(troubles(&found, now()), Vec::<String>::new());
    let shown = to_text(&found, &[], now()) + &to_json(&found, &[]).to_string();
    assert!(
        shown.contains("spiffe://example.org/ns/a/sa/b") && shown.contains("number 7"),
        "{shown}"
    );
    let key = hex::encode(svid.key().pkcs8_der());
    assert!(!shown.contains("PRIVATE") && !format!("{found:?}").contains(&key[60..100]));
    let der = ["svid=a,der", "key=b,der", "bundle=c,der", "crl=d,der"];
    written(&path.join("der"), &authority, &svid, &[], &der);
    let found = read(&path.join("der")).unwrap();
    assert_eq!(kinds(&found), ["svid", "key", "authority", "crl"]);
    assert_eq!(troubles(&found, now()), Vec::<String>::new());
}

#[test]
fn what_is_wrong_is_said() {
    let folder = signet_testkit::folder();
    let (ours, path) = (authority(DOMAIN), folder.path());
    let holder = svid(&ours, "/ns/a/sa/b");
    written(path, &ours, &holder, &[holder.serial()], &[]);
    let set = read(path).unwrap();
    let says = |found: &[Found], at, what: &str| {
        let troubles = troubles(found, at);
        assert!(
            troubles.iter().any(|trouble| trouble.contains(what)),
            "{what}: {troubles:?}"
        );
    };
    says(&set, now(), "is revoked: serial");
    says(&set, now() + 1000 * HOUR, "the svid has expired");
    says(&set, now() + 1000 * HOUR, "the crl has expired");
    says(&set, now() - 1000 * HOUR, "the svid is not valid");

    let other = path.join("other");
    let stranger = svid(&authority(DOMAIN), "/ns/a/sa/c");
    written(&other, &ours, &stranger, &[], &["svid=a", "key=b"]);
    let foreign = read(&other).unwrap();
    let mixed: Vec<Found> = set[..2].iter().chain(&foreign[..1]).cloned().collect();
    says(&mixed, now(), "no authority here has issued it");
    let keys: Vec<Found> = set.iter().chain(&foreign[1..]).cloned().collect();
    says(&keys, now(), "belongs to none of the certificates here");

    let key = other.join("..data/b");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    says(
        &read(&key).unwrap(),
        now(),
        "everybody on this machine may read the key",
    );
    let junk = path.join("junk");
    fs::write(
        &junk,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    says(&read(&junk).unwrap(), now(), "unusable certificate");
    fs::write(&junk, "junk").unwrap();
    says(&read(&junk).unwrap(), now(), "neither PEM nor DER");
    assert!(read(&path.join("absent")).is_err());
}

#[test]
fn a_leaf_verifies_or_it_is_said_why_not() {
    let folder = signet_testkit::folder();
    let (ours, path) = (authority(DOMAIN), folder.path());
    let holder = svid(&ours, "/ns/a/sa/b");
    written(&path.join("good"), &ours, &holder, &[], &[]);
    written(&path.join("bad"), &ours, &holder, &[holder.serial()], &[]);
    let of = |name: &str| read(&path.join(name)).unwrap();
    let (leaf, good, revoked) = (of("good/svid_with_key.pem"), of("good"), of("bad"));
    assert_eq!(judged(&leaf, &good, Some(holder.spiffe_id())), Ok(()));
    let why = |outcome: Result<(), String>, what: &str| {
        let why = outcome.unwrap_err();
        assert!(why.contains(what), "{why}");
    };
    why(judged(&leaf, &revoked, None), "revoked");
    let other = SpiffeId::parse("spiffe://example.org/ns/a/sa/c").unwrap();
    why(
        judged(&leaf, &good, Some(&other)),
        "not of spiffe://example.org/ns/a/sa/c",
    );
    why(judged(&leaf, &of("good/bundle.pem"), None), "no CRL of authority");
    why(judged(&of("good/crl.pem"), &good, None), "there is no SVID in it");
    why(judged(&leaf, &of("good/crl.pem"), None), "holds no authority");
    let stranger = svid(&authority(DOMAIN), "/ns/a/sa/b");
    written(
        &path.join("stranger"),
        &ours,
        &stranger,
        &[],
        &["svid=a", "key=b"],
    );
    why(judged(&of("stranger/a"), &good, None), "does not chain");
    let mixed = [of("good/svid.pem"), of("stranger/b")].concat();
    why(judged(&mixed, &good, None), "the key does not belong");
}
