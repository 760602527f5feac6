//! publish_http
