#!/bin/bash
# Stands in for a sandbox-server: says that it is ready, lives as long as it is told, and fails when
# its container's name says so.
while (($#)); do
  case $1 in
    --ready-file) ready=$2; shift ;;
    --lifetime-s) lifetime_s=$2; shift ;;
    --data-dir) data=$2; shift ;;
    --container=*) name=${1#*=} ;;
    --cleanup) exit 0 ;;
  esac
  shift
done
echo "slots are ready"
case $name in
  fails) echo "no slot could be made" >&2; exit 3 ;;
  deaf) trap '' TERM ;;
  never-ready) ready=$data/elsewhere ;;
  damaged) echo '{"authority"' >"$ready.new" && mv "$ready.new" "$ready" ;;
esac
[[ $SLOTMUX_CONTAINER_TOKEN =~ ^[0-9a-f]{64}$ && -z $SLOTMUX_TOKEN ]] || exit 4
[[ -e $ready ]] || { echo '{"authority":"127.0.0.1:9"}' >"$ready.new" && mv "$ready.new" "$ready"; }
# A wait without a child. Ignored signals leave it running.
exec 9<> <(:)
read -r -t "$lifetime_s" -u 9
exit 0
