//! key_manager
