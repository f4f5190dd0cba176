#!/bin/sh
# Cross-builds the library for 64-bit ARM and runs the small test suite under qemu-user.
#   run_aarch64.sh BUILD_DIR [DIR_WITH_CMAKE_AND_NINJA]
# Exit status: 0 passed, 1 failed, 2 wrong use, 3 a tool is missing.
set -u

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: $0 BUILD_DIR [DIR_WITH_CMAKE_AND_NINJA]" >&2
  exit 2
fi
build=$1
if [ $# -eq 2 ]; then
  PATH=$2:$PATH
  export PATH
fi
kernels=$(cd "$(dirname "$0")/.." && pwd) || exit 1

missing=
need() {
  command -v "$1" >/dev/null 2>&1 || missing="$missing
  $1 ($2)"
}
need aarch64-linux-gnu-g++ "Debian package g++-aarch64-linux-gnu"
need qemu-aarch64 "Debian package qemu-user"
need cmake "Debian or Python package cmake"
need ninja "Debian package ninja-build, Python package ninja"
if [ -n "$missing" ]; then
  echo "Cannot test 64-bit ARM, these programs are not installed:$missing" >&2
  exit 3
fi

cmake -G Ninja -S "$kernels" -B "$build" -DDIRNET_BUILD_TESTS=ON \
  -DCMAKE_TOOLCHAIN_FILE="$kernels/cmake/aarch64-linux-gnu.cmake" || exit 1
ninja -C "$build" || exit 1
for test in test_conv2d test_binarize test_isa test_memory test_stem test_stem_int8 test_sign_conv_backward \
  test_training test_vectors; do
  qemu-aarch64 -L /usr/aarch64-linux-gnu "$build/tests/$test" --small || exit 1
done
echo "64-bit ARM: the small suite passed under qemu."
