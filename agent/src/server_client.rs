//! server_client
