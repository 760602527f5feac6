//! publish_https
