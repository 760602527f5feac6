use std::sync::Arc;

use super::MemoryStore;
use crate::store::suite::fixture::trust_domain;
use crate::store::suite::store_suite;

fn fresh() -> (Arc<MemoryStore>, ()) {
    (MemoryStore::new(trust_domain()), ())
}

store_suite!(fresh());
