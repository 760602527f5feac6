//! The service accounts of a cluster: a token ends with its account.

use std::collections::HashMap;

use signet_runtime::sync::RwLock;

use super::wire::AccountItem;
use crate::kubernetes::watch::Sink;

/// UIDs of service accounts by namespace and name.
type KnownAccounts = HashMap<String, HashMap<String, String>>;

/// The service accounts of a cluster as they are now.
#[derive(Default)]
pub(super) struct Accounts {
    uids: RwLock<KnownAccounts>,
}

impl Accounts {
    /// Whether there is one of this name with this UID.
    pub(super) fn has(&self, namespace: &str, name: &str, uid: &str) -> bool {
        let accounts = self.uids.read();
        accounts
            .get(namespace)
            .and_then(|names| names.get(name))
            .is_some_and(|known| known == uid)
    }
}

impl Sink for Accounts {
    type Item = AccountItem;
    type State = KnownAccounts;
    const PATH: &'static str = "/api/v1/serviceaccounts";

    fn add(state: &mut KnownAccounts, AccountItem { metadata }: AccountItem) {
        state
            .entry(metadata.namespace)
            .or_default()
            .insert(metadata.name, metadata.uid);
    }

    fn take(state: &mut KnownAccounts, AccountItem { metadata }: &AccountItem) {
        if let Some(names) = state.get_mut(&metadata.namespace) {
            names.remove(&metadata.name);
            if names.is_empty() {
                state.remove(&metadata.namespace);
            }
        }
    }

    async fn replace(&self, state: KnownAccounts) {
        *self.uids.write() = state;
    }

    fn upsert(&self, item: AccountItem) {
        Self::add(&mut self.uids.write(), item);
    }

    fn remove(&self, item: &AccountItem) {
        Self::take(&mut self.uids.write(), item);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn service_accounts_are_known_by_their_uid() {
        let accounts = Accounts::default();
        let account = |uid: &str| {
            let metadata = json!({"name": "frontend", "namespace": "shop", "uid": uid});
            serde_json::from_value::<AccountItem>(json!({ "metadata": metadata })).unwrap()
        };
        let known = |uid: &str| accounts.has("shop", "frontend", uid);
        accounts.upsert(account("1"));
        assert!(known("1") && !known("2"));
        accounts.upsert(account("2"));
        assert!(!known("1") && known("2"));
        accounts.remove(&account("2"));
        assert!(accounts.uids.read().is_empty());
        let mut state = KnownAccounts::default();
        Accounts::add(&mut state, account("3"));
        accounts.replace(state).await;
        assert!(known("3"));
    }
}
