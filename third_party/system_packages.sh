#!/bin/sh
# Installs what the system lacks, by apt when we may; else says what is missing.
# usage: system_packages.sh build|test|fuzz
set -eu
case "${1:-}" in
  build) needed="g++:g++ patch:patch" ;;
  test)  needed="qemu-x86_64-static:qemu-user-static" ;;
  fuzz)  needed="clang++-14:clang-14,libclang-rt-14-dev" ;;
  *) echo "usage: system_packages.sh build|test|fuzz" >&2; exit 2 ;;
esac

missing=""
for pair in $needed; do
  command -v "${pair%%:*}" > /dev/null || missing="$missing $(echo "${pair##*:}" | tr , ' ')"
done
[ -n "$missing" ] || exit 0

root=""
if [ "$(id -u)" != 0 ]; then
  command -v sudo > /dev/null && root="sudo" || { echo "please install:$missing" >&2; exit 1; }
fi
command -v apt-get > /dev/null || { echo "please install:$missing" >&2; exit 1; }
$root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends $missing > /dev/null
