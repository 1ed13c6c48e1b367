#!/usr/bin/env bash
# Sets up what the tests need, and passes them. As root it also runs what needs root, and installs
# what is missing: busybox, docker-compose, and a Docker engine, which it starts if none answers, and
# stops again. What a machine cannot do is counted as skipped, with the reason. With CI=true the
# rungs of the ladder, the static executable, the engine and docker-compose must be there.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '\n== %s\n' "$*"; }

need() {
  command -v "$1" >/dev/null 2>&1 && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing $2"
    apt-get install -y -qq "$2" >/dev/null 2>&1 ||
      { apt-get update -qq && apt-get install -y -qq "$2" >/dev/null; }
  else
    printf 'error: %s is needed: install the package %s\n' "$1" "$2" >&2
    exit 1
  fi
}

# For tests that say so and are skipped without it.
want() {
  command -v "$1" >/dev/null 2>&1 && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    need "$1" "$2" || printf 'note: %s could not be installed\n' "$2" >&2
  fi
}

need cargo cargo
need cc gcc
need git git
need bash bash
want busybox busybox-static
want python3 python3
want dockerd docker.io
want docker docker-cli
want docker-compose docker-compose
want iptables iptables
want ip iproute2

# Debian's cargo may lack the components; rustup's has them.
lint=yes
cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || lint=no

if [ "$lint" = yes ]; then
  say "format"
  cargo fmt --all -- --check
  say "lints"
  cargo clippy --workspace --all-targets --quiet -- -D warnings
elif [ -n "${CI:-}" ]; then
  echo "error: rustfmt and clippy are needed in CI" >&2
  exit 1
fi

say "the house's own rules"
./tests/tidy.sh

say "static executable"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo static --quiet
export SLOTMUX_STATIC_SERVER="$PWD/target/$host/small/slotmux-sandbox-server"

say "Docker engine"
# Also when a test has failed: what was started here ends with this script.
trap './tests/engine.sh stop' EXIT
if engine=$(./tests/engine.sh start); then
  export DOCKER_HOST=$engine
  # Without them the tests that want them are skipped; in CI that is a failure of theirs.
  ./tests/engine.sh images || echo "note: the images of the Docker tests cannot be made here" >&2
fi

say "tests"
# The end-to-end tests run the release build: they are about load.
cargo build --quiet --release
export SLOTMUX_BIN="$PWD/target/release/slotmux"
cargo test --quiet --workspace --no-fail-fast -- --show-output 2>&1 | tee target/tests.log
skipped=$(grep -c '^skipped:' target/tests.log || true)
if [ "$skipped" != 0 ]; then
  printf '%s tests skipped:\n' "$skipped"
  grep '^skipped:' target/tests.log | sort | uniq -c
fi

say "the README's first command"
"$SLOTMUX_BIN" replay examples/rollouts.jsonl
