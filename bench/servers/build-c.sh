#!/bin/sh
# Builds the peers that are not written in Rust, from Debian's packages:
#
#     apt-get install libuv1-dev libasio-dev g++
#
# into the release folder of bench's target directory. One that cannot be built
# is named on stderr, and makes the exit status 1; the others are built.
set -u
here=$(cd "$(dirname "$0")" && pwd)
out=${CARGO_TARGET_DIR:-$here/../target}/release
mkdir -p "$out" || exit 1
status=0

missing() {
    echo "build-c.sh: $1 is not built: $2" >&2
    status=1
}

# name, header, package, compiler, language, the rest of the command
build() {
    name=$1 header=$2 package=$3 compiler=$4 language=$5
    shift 5
    if ! command -v "$compiler" >/dev/null; then
        missing "$name" "no $compiler"
    elif ! echo "#include <$header>" | "$compiler" -x "$language" -E - >/dev/null 2>&1; then
        missing "$name" "no <$header>: install $package"
    elif ! "$compiler" "$@" -o "$out/$name.new"; then
        missing "$name" "see above"
    else
        mv "$out/$name.new" "$out/$name"
        version=$(dpkg-query -W -f='${Version}' "$package" 2>/dev/null)
        echo "$out/$name ($package ${version:-of unknown version})"
    fi
}

build peer-libuv uv.h libuv1-dev cc c \
    -O3 -g1 -DNDEBUG -Wall -Wextra "$here/peer-libuv.c" -luv
build peer-asio asio.hpp libasio-dev c++ c++ \
    -std=c++17 -O3 -g1 -DNDEBUG -DASIO_STANDALONE -Wall -Wextra -pthread \
    "$here/peer-asio.cpp"
exit $status
