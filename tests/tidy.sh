#!/usr/bin/env bash
# Rules of the house that a compiler does not know. See ARCHITECTURE.md.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0

fault() {
  printf 'tidy: %s\n' "$*" >&2
  bad=1
}

# Arrows between crates point down only.
depends() { # crate, allowed dependencies of ours
  local crate=$1 found
  shift
  found=$(sed -n '/^\[dependencies\]/,/^\[/p' "$crate/Cargo.toml" |
    sed -n 's/^slotmux-\([a-z-]*\).*/\1/p' | sort | tr '\n' ' ')
  for name in $found; do
    [[ " $* " == *" $name "* ]] || fault "$crate must not depend on slotmux-$name"
  done
}
depends protocol
depends edge protocol
depends sandbox-server protocol edge
depends backend protocol
depends local backend protocol
depends docker backend protocol
depends agent protocol docker edge
depends pool backend protocol edge

# The pure core knows no clock, no runtime and no wire.
if grep -rnE '^\s*use (tokio|actix|serde|std::time)' pool/src/core.rs pool/src/core; then
  fault "the state core imports what is not pure"
fi

if grep -rnE '^\s*use (tokio|bollard|slotmux_docker|std::(fs|io|net)|std::time::\{?(Instant|SystemTime))' \
  agent/src/job/core.rs agent/src/job/core; then
  fault "the state machine of a job imports what is not pure"
fi

# actix is named in one file, so that replacing it is an afternoon's work.
while read -r file; do
  [ "$file" = pool/src/actor.rs ] || fault "actix is named in $file"
done < <(grep -rlE '\bactix::' --include='*.rs' pool/src)

# Small files, each one idea.
while read -r lines file; do
  [ "$lines" -le 600 ] || fault "$file has $lines lines"
done < <(git ls-files '*.rs' | xargs wc -l | grep -v ' total$' | sed 's/^ *//')

# Every module says what it is for.
while read -r file; do
  head -n 1 "$file" | grep -q '^//!' || fault "$file does not begin with //!"
done < <(git ls-files '*/src/*.rs' | grep -v '/tests.rs$')

if git grep -nE '\b(todo|unimplemented)!\(|#\[ignore' -- '*.rs'; then
  fault "unfinished work or an ignored test"
fi

# Whoever reads the compose files finds each setting explained.
for name in $(grep -ohE '\$\{SLOTMUX_[A-Z_]+' compose*.yaml | sed 's/^..//' | sort -u); do
  grep -qF "\`$name\`" docs/compose.md || fault "docs/compose.md does not explain $name"
done

exit $bad
