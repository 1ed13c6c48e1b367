#!/usr/bin/env bash
# A Docker engine for the tests: the one that answers, or else one of our own.
#
#   tests/engine.sh start   prints the engine's address; starts one where none answers (root only)
#   tests/engine.sh images [busybox|debian …]
#                           makes the images of the tests, of what this machine has: no registry
#   tests/engine.sh stop    ends what `start` has started, and removes what that has left
#
# With SLOTMUX_ENGINE=NAME it is another one, beside the first: for tests that stop and kill it.
# SLOTMUX_ENGINE_NET is its network then (a.b.c.d/n), SLOTMUX_ENGINE_FLAGS go to dockerd.
#
# Ours has its images below target/, touches no firewall and no other engine, and ends by its
# process id. Fails, with the reason on stderr, where there is no engine and none can be started.
set -euo pipefail
cd "$(dirname "$0")/.."

name=${SLOTMUX_ENGINE:-}
images=$PWD/target/engine${name:+-$name}
# Not below the tree: the path of a socket has a hundred bytes.
run=/run/slotmux-engine${name:+-$name}
socket=unix://$run/docker.sock
bridge=slotmux${name:-0}
network=${SLOTMUX_ENGINE_NET:-172.29.84.1/22}
read -ra flags <<<"${SLOTMUX_ENGINE_FLAGS:-}"
# Whose the engine is: another checkout may use it, and only this one ends it.
owner=$run/owner

answers() {
  DOCKER_HOST=$1 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

refuse() {
  printf '%s\n' "$*" >&2
  exit 1
}

start() {
  command -v docker >/dev/null || refuse "no docker command: install the package docker.io"
  local any=("$socket")
  [ -n "$name" ] || any=("${DOCKER_HOST:-unix:///var/run/docker.sock}" "$socket")
  for there in "${any[@]}"; do
    if answers "$there"; then
      echo "$there"
      return
    fi
  done
  [ "$(id -u)" = 0 ] || refuse "no Docker engine answers, and only root can start one"
  command -v dockerd >/dev/null || refuse "no dockerd: install the package docker.io"
  mkdir -p "$images" "$run"
  printf '%s\n' "$PWD" >"$owner"
  if ! ip link show "$bridge" >/dev/null 2>&1; then
    ip link add "$bridge" type bridge && ip address add "$network" dev "$bridge" &&
      ip link set "$bridge" up || refuse "no network bridge can be made here"
  fi
  # Containers are reached on the bridge itself, and need nothing of the world outside.
  setsid dockerd --host "$socket" --data-root "$images/data" --exec-root "$run/exec" \
    --pidfile "$run/pid" --bridge "$bridge" --iptables=false --ip6tables=false \
    --ip-forward=false --ip-masq=false ${flags[@]+"${flags[@]}"} >"$images/log" 2>&1 </dev/null &
  for _ in $(seq 300); do
    if answers "$socket"; then
      echo "$socket"
      return
    fi
    kill -0 $! 2>/dev/null || break
    sleep 0.1
  done
  kill $! 2>/dev/null || true
  local why
  why=$(tail -n 1 "$images/log")
  stop
  refuse "dockerd does not start: $why"
}

# Whether a process is still the engine that was started, and not a later one of its number.
is_engine() {
  [ "$(cat "/proc/$1/comm" 2>/dev/null)" = dockerd ]
}

stop() {
  [ "$(cat "$owner" 2>/dev/null)" = "$PWD" ] || return 0
  local pid
  pid=$(cat "$run/pid" 2>/dev/null || true)
  if [ -n "$pid" ] && is_engine "$pid"; then
    kill "$pid"
    for _ in $(seq 300); do
      is_engine "$pid" || break
      sleep 0.1
    done
    is_engine "$pid" && refuse "dockerd ($pid) does not end; its files are left in $run"
  fi
  ip link delete "$bridge" 2>/dev/null || true
  rm -rf "$run"
}

# One file and its names, and the directories that Docker needs.
busybox_image() {
  local root=$1 busybox
  busybox=$(command -v busybox) || refuse "no busybox: install the package busybox-static"
  mkdir -p "$root/bin"
  cp "$busybox" "$root/bin/busybox"
  for name in sh cat id ls sleep echo; do ln -s busybox "$root/bin/$name"; done
}

# Debian's essential packages as they are installed here, with the libraries that they need.
debian_image() {
  local root=$1 packages files libraries dir
  command -v dpkg-query >/dev/null || refuse "no Debian to make an image of"
  for dir in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$dir" ]; then
      mkdir -p "$root/usr/$dir"
      ln -s "usr/$dir" "$root/$dir"
    fi
  done
  # shellcheck disable=SC2016
  packages=$(dpkg-query -W -f '${binary:Package} ${Essential}\n' | sed -n 's/ yes$//p')
  # shellcheck disable=SC2086
  files=$(dpkg -L $packages procps libgcc-s1 2>/dev/null |
    grep -vE '^/usr/share/(doc|man|locale|info|i18n|lintian|bug)|/gconv|^/\.$' | sort -u || true)
  libraries=$(for file in $files; do
    [ -f "$file" ] && [ -x "$file" ] && ldd "$file" 2>/dev/null
  done | grep -oE '/[^ ]+\.so[^ ]*' | sort -u || true)
  printf '%s\n' "$files" "$libraries" /etc/passwd /etc/group | sort -u | while read -r file; do
    if [ -e "$file" ]; then printf '%s\n' "${file#/}"; fi
  done >"$root.list"
  # Libraries are links to versions of themselves.
  tar -C / --no-recursion -h -cf - -T <(grep -F .so "$root.list") |
    tar -C "$root" -x --keep-directory-symlink -f -
  tar -C / --no-recursion -cf - -T <(grep -vF .so "$root.list") |
    tar -C "$root" -x --keep-directory-symlink -f -
  for dir in proc sys dev tmp run var/tmp root home; do mkdir -p "$root/$dir"; done
  chmod 1777 "$root/tmp" "$root/var/tmp"
}

images() {
  local kind
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  local kinds=("$@")
  [ $# != 0 ] || kinds=(busybox debian)
  for kind in "${kinds[@]}"; do
    mkdir "$work/$kind"
    "${kind}_image" "$work/$kind"
    docker rmi -f "slotmux-test:$kind" >/dev/null 2>&1 || true
    tar -C "$work/$kind" -c . | docker import - "slotmux-test:$kind" >/dev/null
  done
}

case ${1:-} in
  start) start ;;
  images) images "${@:2}" ;;
  stop) stop ;;
  *) refuse "usage: tests/engine.sh start|images|stop" ;;
esac
