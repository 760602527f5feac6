//! authority_filter
