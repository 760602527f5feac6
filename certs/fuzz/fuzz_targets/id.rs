//! SPIFFE IDs: what is accepted is canonical, and survives every way of taking it apart and building it again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signet_certs::id::{MAX_ID_BYTES, SpiffeId, TrustDomain};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(domain) = TrustDomain::parse_lenient(text) {
        assert_eq!(TrustDomain::parse(domain.as_str()).as_ref(), Ok(&domain));
        assert!(domain.as_str().len() <= text.len() && text.to_ascii_lowercase().ends_with(domain.as_str()));
    }
    let Ok(id) = SpiffeId::parse(text) else { return };
    assert_eq!(id.as_str(), text);
    assert!(text.is_ascii() && text.len() <= MAX_ID_BYTES);
    let domain = id.trust_domain();
    assert_eq!(format!("{}{}", domain.id(), id.path()), text);
    let segments: Vec<&str> = id.path().split('/').skip(1).collect();
    assert!(
        segments
            .iter()
            .all(|segment| !matches!(*segment, "" | "." | ".."))
    );
    assert_eq!(SpiffeId::from_segments(&domain, &segments).as_ref(), Ok(&id));
    assert!(id.is_within(&id) && id.is_within(&domain.id()));
    assert_eq!(id.is_trust_domain(), segments.is_empty());
    assert!(!id.is_agent() || id.is_reserved());
});
