#!/usr/bin/env bash
# Installs the build into a scratch prefix, compiles first_read.c against it as a stranger would, and runs it beside a
# kelpd that serves the fixture volumes.   run.sh BUILD_DIR SOURCE_DIR CC
set -euo pipefail
build=$1 source=$2 cc=$3
scratch=$(mktemp -d)
daemon=
finish() {
  if [[ -n $daemon ]]; then kill "$daemon" 2>/dev/null || true; wait "$daemon" 2>/dev/null || true; fi
  rm -rf "$scratch"
}
trap finish EXIT

cmake --install "$build" --prefix "$scratch/prefix" >/dev/null
# The scratch prefix is not the configured one: pkg-config is told so.
pc_dir=$(dirname "$(find "$scratch/prefix" -name kelp.pc)")
lib_dir=$(dirname "$pc_dir")
sed -i "s|^prefix=.*|prefix=$scratch/prefix|; s|^libdir=.*|libdir=$lib_dir|; s|^includedir=.*|includedir=$scratch/prefix/include|" \
  "$pc_dir/kelp.pc"
export PKG_CONFIG_PATH=$pc_dir
sanitize=()
if [[ -n ${KELP_SANITIZE:-} ]]; then sanitize=("-fsanitize=$KELP_SANITIZE"); fi
# Word splitting is what pkg-config's output is for.
# shellcheck disable=SC2046
"$cc" -std=c11 -Wall -Wextra -Werror -pedantic "${sanitize[@]}" "$source/tests/c_abi/first_read.c" -o "$scratch/first_read" \
  $(pkg-config --cflags --libs kelp) -Wl,-rpath,"$lib_dir"

mkdir "$scratch/consumer"
cat > "$scratch/consumer/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C)
find_package(kelp REQUIRED)
add_executable(consumer first_read.c)
target_link_libraries(consumer PRIVATE kelp::kelp)
CMAKE
cp "$source/tests/c_abi/first_read.c" "$scratch/consumer/"
cmake -G Ninja -S "$scratch/consumer" -B "$scratch/consumer/build" -DCMAKE_PREFIX_PATH="$scratch/prefix" \
  -DCMAKE_C_COMPILER="$cc" -DCMAKE_C_FLAGS="${sanitize[*]}" >/dev/null
cmake --build "$scratch/consumer/build" >/dev/null

cp -r "$source/tests/fixtures/v5b/vs" "$scratch/volumes"
"$build/bin/kelpd" --volume-dir "$scratch/volumes" --run-dir "$scratch/run" 2>"$scratch/kelpd.log" &
daemon=$!
for _ in $(seq 100); do
  if "$build/bin/kelpctl" --run-dir "$scratch/run" --json health 2>/dev/null | grep -q '"healthy"'; then break; fi
  sleep 0.1
done
for program in "$scratch/first_read" "$scratch/consumer/build/consumer"; do
  "$program" "$scratch/run" 1,bf253d589b 7
done
kill "$daemon"
wait "$daemon"
daemon=
echo "a C11 program read through an installed libkelp"
