# The steps of CI by name, and what people run. `just` lists it.
default:
    @just --list

# What README says.
test:
    .ci/step test

# What asks more of the machine than a test may: root, namespaces.
machine:
    .ci/step machine

fmt:
    .ci/step fmt

lint:
    .ci/step lint

doc:
    .ci/step doc

# Compiles the fuzz targets, without nightly.
fuzz-check:
    .ci/step fuzz-check

# What is published: the library for workloads with all it stands on.
package:
    .ci/step package

# What may be built in: licences, one version of each crate.
deny:
    .ci/step deny

# Programs that nobody here wrote, against a trust domain on this machine.
interop:
    .ci/step interop

# Sidecar proxies: Envoy from PyPI, in README's configuration.
proxies:
    .ci/step proxies

# The real programs while their wall clock is moved.
clock:
    .ci/step clock

# The real server, killed at thirty random moments under load.
crash:
    .ci/step crash

# The agent as it is shipped, from its image; needs root.
image:
    .ci/step image

# How much the units of systemd leave open, and a systemd of its own that runs them; needs root.
units:
    .ci/step units

# Needs a Kubernetes cluster: export SIGNET_TEST_KUBECONFIG first.
cluster:
    .ci/step cluster

# Ten seconds of each fuzz target; needs nightly and cargo-fuzz.
fuzz:
    .ci/step fuzz

# All of them, as CI does.
ci:
    .ci/run

# Regenerate src/gen from the .proto files.
gen:
    SIGNET_UPDATE_GEN=1 cargo test -p signet-proto

# docs/conformance.md with the tests of each row.
conformance:
    cargo test --quiet --workspace --test conformance -- --ignored --nocapture

# A whole trust domain on this machine; Ctrl-C ends it.
dev dir="/tmp/signet-dev":
    cargo run --release --bin signet-dev -- --dir {{dir}}

demo:
    cargo run --release --bin signet-dev -- demo

bench:
    cargo run --release --bin signet-bench -- issue --output json
    cargo run --release --bin signet-bench -- fleet --output json
    cargo run --release --bin signet-bench -- streams --output json
