# Everything CI runs, by name. `just` lists it.
default:
    @just --list

# What README says.
test:
    cargo test --workspace

fmt:
    cargo fmt --all --check

lint:
    cargo clippy --workspace --all-targets -- -D warnings

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

deny:
    cargo deny check bans licenses sources

# Regenerate src/gen from the .proto files.
gen:
    SIGNET_UPDATE_GEN=1 cargo test -p signet-proto

# Programs that nobody here wrote, against a trust domain on this machine.
interop:
    tests/interop/run.sh

# A whole trust domain on this machine; Ctrl-C ends it.
dev dir="/tmp/signet-dev":
    cargo run --release --bin signet-dev -- --dir {{dir}}

demo:
    cargo run --release --bin signet-dev -- demo

# Needs a Kubernetes cluster: export SIGNET_TEST_KUBECONFIG first.
cluster:
    cargo test -p signet-tests --test cluster

bench:
    cargo run --release --bin signet-bench -- issue --output json

# Ten seconds of each fuzz target; needs nightly and cargo-fuzz.
fuzz seconds="10":
    for target in id csr certificate crl; do (cd certs && cargo +nightly fuzz run $target -- -max_total_time={{seconds}}) || exit 1; done
    cd agent && cargo +nightly fuzz run authority_filter -- -max_total_time={{seconds}}

ci:
    .ci/run
