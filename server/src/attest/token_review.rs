//! token_review
