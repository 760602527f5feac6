use super::*;

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap()
}

#[test]
fn a_prefix_ends_with_a_segment() {
    let shop = DenialTarget::Prefix(id("/ns/shop"));
    for (path, hit) in [
        ("/ns/shop", true),
        ("/ns/shop/sa/web", true),
        ("/ns/shop-admin", false),
        ("/ns/shopping/sa/web", false),
        ("/ns", false),
    ] {
        assert_eq!(shop.hits(&Subject::of(&id(path))), hit, "{path}");
    }
    let elsewhere = SpiffeId::parse("spiffe://example.com/ns/shop").unwrap();
    assert!(!shop.hits(&Subject::of(&elsewhere)));
}

#[test]
fn a_node_is_known_by_its_uid_and_by_its_name_in_its_cluster() {
    let node = DenialTarget::Node(Named {
        cluster_uid: "c".to_owned(),
        uid: "u".to_owned(),
        name: "node-a".to_owned(),
    });
    let anybody = id("/x");
    let on = |cluster_uid, node_uid, node_name| Subject {
        cluster_uid,
        node_uid,
        node_name,
        ..Subject::of(&anybody)
    };
    assert!(node.hits(&on("c", "u", "renamed")));
    assert!(node.hits(&on("c", "made-again", "node-a")));
    assert!(node.hits(&on("", "u", "node-a")), "a process has no cluster");
    assert!(!node.hits(&on("other", "v", "node-a")), "of another cluster");
    assert!(!node.hits(&on("c", "", "")));
}
