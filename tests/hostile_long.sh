#!/usr/bin/env bash
# The long part of the tests against hostile files:
#
#   tests/hostile_long.sh FOLDER [--seconds N] [--runs N] [TARGET...]
#
# Builds with clang, sanitizers and libFuzzer in FOLDER; then each TARGET (parse load tokenizer
# blocks template json, and sweep: all truncations and bit flips of a file of 64 KiB; default: all)
# runs until its seconds (1200) or executions (--runs, no limit) are spent, from its seeds and the
# corpus that FOLDER keeps. Ends with the executions of each target, those of earlier runs in FOLDER
# included; fails at the first crash, leak or time-out, whose input is then in FOLDER.
# CMAKE_BUILD_PARALLEL_LEVEL=1 and nice leave room for others.
set -euo pipefail

usage() {
  sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
number() {
  [[ $1 =~ ^[0-9]+$ ]] || usage
  printf '%s' "$1"
}

[[ $# -ge 1 && $1 != -* ]] || usage
script=$(readlink -f -- "${BASH_SOURCE[0]}")
root=${script%/*/*}
mkdir -p "$1"
folder=$(readlink -f -- "$1")
shift
all=(parse load tokenizer blocks template json)
seconds=1200 runs=-1 chosen=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --seconds) seconds=$(number "${2-}"); shift 2 ;;
    --runs) runs=$(number "${2-}"); shift 2 ;;
    *)
      [[ " ${all[*]} sweep " == *" $1 "* ]] || usage
      chosen+=("$1") && shift
      ;;
  esac
done
[[ ${#chosen[@]} -gt 0 ]] || chosen=("${all[@]}" sweep)

fuzzers=() programs=()
for target in "${chosen[@]}"; do
  if [[ $target == sweep ]]; then
    programs+=(hostile_sweep)
  else
    fuzzers+=("fuzz_$target")
  fi
done
programs+=("${fuzzers[@]}")
if [[ ${#fuzzers[@]} -gt 0 ]]; then
  cmake -S "$root" -B "$folder/plain" -G Ninja -DCMAKE_BUILD_TYPE=Release -DQWEN_CUDA=OFF > /dev/null
  cmake --build "$folder/plain" --target "${fuzzers[@]}"
fi
cmake -S "$root" -B "$folder/fuzz" -G Ninja -DCMAKE_BUILD_TYPE=Release -DQWEN_CUDA=OFF -DQWEN_FUZZ=ON \
  -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_CXX_FLAGS_RELEASE="-O2 -g1 -UNDEBUG" > /dev/null
cmake --build "$folder/fuzz" --target "${programs[@]}"

fuzz() {
  local target=$1 kept=() start=$SECONDS
  mkdir -p "$folder/corpus/$target"
  "$folder/plain/bin/fuzz_$target" --seeds "$folder/seeds/$target" > /dev/null
  [[ ! -d $root/tests/fuzz/kept/$target ]] || kept=("$root/tests/fuzz/kept/$target")
  "$folder/fuzz/bin/fuzz_$target" "$folder/corpus/$target" "$folder/seeds/$target" "${kept[@]}" \
    -max_total_time="$seconds" -runs="$runs" -max_len=65536 -timeout=60 -rss_limit_mb=2048 \
    -print_final_stats=1 -dict="$root/tests/fuzz/gguf.dict" \
    -artifact_prefix="$folder/${target}_" > "$folder/$target.log" 2>&1 ||
    { tail -40 "$folder/$target.log" && exit 1; }
  printf '%s\t%s\t%s\n' "$target" \
    "$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/$target.log")" \
    $((SECONDS - start)) >> "$folder/figures.tsv"
}

for target in "${chosen[@]}"; do
  if [[ $target == sweep ]]; then "$folder/fuzz/bin/hostile_sweep"; else fuzz "$target"; fi
done
for target in "${all[@]}"; do
  [[ -d $folder/corpus/$target ]] || continue
  awk -v t="$target" -v n="$(find "$folder/corpus/$target" -type f | wc -l)" -F '\t' \
    '$1 == t { runs += $2; s += $3 }
     END { printf "%s: %d executions in %d s, %d inputs kept\n", t, runs, s, n }' \
    "$folder/figures.tsv"
done
