#!/usr/bin/env bash
# The long part of the tests against hostile files: tests/hostile_long.sh FOLDER [SECONDS_PER_TARGET]
#
# Builds with clang, sanitizers and libFuzzer in FOLDER, fuzzes every target for SECONDS_PER_TARGET
# (default 1200) from its seeds and the corpus that FOLDER keeps, and sweeps over all truncations and
# bit flips of a file of 64 KiB. Ends with the executions of each target; fails at the first crash,
# leak or time-out, whose input is then in FOLDER.
set -euo pipefail

if [[ $# -lt 1 || $1 == -* ]]; then
  sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 2
fi
script=$(readlink -f -- "${BASH_SOURCE[0]}")
root=${script%/*/*}
mkdir -p "$1"
folder=$(readlink -f -- "$1")
seconds=${2:-1200}
targets=(parse load tokenizer blocks template json)
programs=("${targets[@]/#/fuzz_}")

cmake -S "$root" -B "$folder/plain" -G Ninja -DCMAKE_BUILD_TYPE=Release -DQWEN_CUDA=OFF > /dev/null
ninja -C "$folder/plain" "${programs[@]}"
cmake -S "$root" -B "$folder/fuzz" -G Ninja -DCMAKE_BUILD_TYPE=Release -DQWEN_CUDA=OFF -DQWEN_FUZZ=ON \
  -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_CXX_FLAGS_RELEASE="-O2 -g1 -UNDEBUG" > /dev/null
ninja -C "$folder/fuzz" "${programs[@]}" hostile_sweep

for target in "${targets[@]}"; do
  mkdir -p "$folder/corpus/$target"
  "$folder/plain/bin/fuzz_$target" --seeds "$folder/seeds/$target" > /dev/null
  kept=()
  [[ ! -d $root/tests/fuzz/kept/$target ]] || kept=("$root/tests/fuzz/kept/$target")
  "$folder/fuzz/bin/fuzz_$target" "$folder/corpus/$target" "$folder/seeds/$target" "${kept[@]}" \
    -max_total_time="$seconds" -max_len=65536 -timeout=60 -rss_limit_mb=2048 -print_final_stats=1 \
    -dict="$root/tests/fuzz/gguf.dict" -artifact_prefix="$folder/${target}_" > "$folder/$target.log" 2>&1 ||
    { tail -40 "$folder/$target.log" && exit 1; }
done
"$folder/fuzz/bin/hostile_sweep"
for target in "${targets[@]}"; do
  printf '%s: %s executions, %s inputs kept\n' "$target" \
    "$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/$target.log")" \
    "$(find "$folder/corpus/$target" -type f | wc -l)"
done
