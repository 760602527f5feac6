//! own_svid
