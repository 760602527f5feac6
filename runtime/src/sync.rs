//! Locks that a panic does not poison. A task that panics holding one leaves the state as it was at that moment, and the
//! others go on; what may not be seen half done is put together before it is stored.

pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
