#!/usr/bin/env bash
# Makes the images of ../Dockerfile without a registry: the executables are built on this machine,
# and the base is an image that the engine has already.
#
#   packaging/images.sh [--base IMAGE] [--built DIR] [--tag TAG]
#
#   --base IMAGE  what the pool's image lies on [debian:bookworm-slim]; it needs bash. One can be
#                 made of any tree of files: tar -C TREE -c . | docker import - slotmux-base
#   --built DIR   static executables `slotmux` and `slotmux-sandbox-server`, instead of building them
#   --tag TAG     of slotmux:TAG and slotmux-sandbox-server:TAG [local]
set -euo pipefail
from=$PWD
cd "$(dirname "$0")/.."

refuse() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

base=debian:bookworm-slim built='' tag=local
while [ $# != 0 ]; do
  case $1 in
    --base | --built | --tag) [ $# -ge 2 ] || refuse "$1 wants a value" ;;
    *) refuse "unknown argument $1; usage: packaging/images.sh [--base IMAGE] [--built DIR] [--tag TAG]" ;;
  esac
  case $1 in
    --base) base=$2 ;;
    # Relative to where it was written.
    --built) built=$(cd "$from" && realpath -m -- "$2") ;;
    --tag) tag=$2 ;;
  esac
  shift 2
done

command -v docker >/dev/null || refuse "no docker command"
said=$(docker version --format '{{.Server.Version}}' 2>&1) || refuse "no Docker engine: ${said##*$'\n'}"
docker image inspect "$base" >/dev/null 2>&1 ||
  refuse "the engine has no image $base; import one: tar -C TREE -c . | docker import - $base"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/dist"
cp Dockerfile "$work/"

if [ -z "$built" ]; then
  # As the Dockerfile does it.
  RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile small \
    --target host-tuple -p slotmux -p slotmux-sandbox-server
  host=$(rustc -vV | sed -n 's/^host: //p')
  built=${CARGO_TARGET_DIR:-target}/$host/small
fi
for program in slotmux slotmux-sandbox-server; do
  [ -x "$built/$program" ] || refuse "there is no executable $built/$program"
  cp "$built/$program" "$work/dist/"
done

for name in slotmux slotmux-sandbox-server; do
  docker build --quiet --force-rm --target "${name#slotmux-}" --tag "$name:$tag" \
    --build-arg PREBUILT=dist --build-arg "RUST_IMAGE=$base" --build-arg "BASE_IMAGE=$base" \
    "$work" >/dev/null
  printf '%s\n' "$name:$tag"
done
# Stages of the classic builder, which nothing will be built of again.
docker images --quiet --filter dangling=true --filter label=slotmux.prebuilt=dist |
  xargs --no-run-if-empty docker rmi >/dev/null 2>&1 || true
