//! CRLs: what is read lists its entries in order, and survives being signed anew.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use signet_certs::crl::{Crl, CrlNumber, RevocationReason, RevokedEntry, sign_crl};
use signet_certs_fuzz::{AUTHORITY, object};
use signet_testkit::{HOUR, now, serial};

static LIST: LazyLock<Crl> = LazyLock::new(|| {
    let entry = |tail: u8, reason| RevokedEntry {
        serial: serial(tail),
        revoked_at: now() - HOUR,
        reason,
        invalid_since: None,
    };
    let entries = [
        entry(1, RevocationReason::KeyCompromise),
        entry(2, RevocationReason::Unspecified),
        entry(3, RevocationReason::PrivilegeWithdrawn),
    ];
    sign_crl(&AUTHORITY, &entries, CrlNumber(1), now() - HOUR, now() + HOUR).expect("a CRL")
});

fuzz_target!(|data: &[u8]| {
    let Some(der) = object(data, LIST.der()) else {
        return;
    };
    let Ok(list) = Crl::verify(&der, AUTHORITY.certificate()) else {
        return;
    };
    assert_eq!(list.der().as_ref(), der.as_slice());
    assert!(list.may_replace(&list.clone(), now()).is_ok());
    assert!(list.next_update() > list.this_update());
    let entries: Vec<RevokedEntry> = list.entries().copied().collect();
    assert_eq!(entries.len(), list.entry_count());
    assert!(
        entries
            .array_windows()
            .all(|[one, next]| one.serial < next.serial)
    );
    assert!(entries.iter().all(|entry| list.is_revoked(&entry.serial)));

    let (begin, end) = (list.this_update(), list.next_update());
    let again = sign_crl(&AUTHORITY, &entries, list.number(), begin, end).expect("a CRL");
    assert_eq!(
        (again.number(), again.this_update(), again.next_update()),
        (list.number(), begin, end)
    );
    // A revocation that is dated later than the list is moved to the list's own date.
    let expected = entries.iter().map(|entry| RevokedEntry {
        revoked_at: entry.revoked_at.min(begin),
        ..*entry
    });
    assert!(again.entries().copied().eq(expected));
});
