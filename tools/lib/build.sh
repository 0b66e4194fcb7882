# shellcheck shell=bash
# Configures and builds, and knows when there is nothing to do. Sourced after packages.sh; $root is the repository.
: "${root:?}"

# What, other than the sources, decides the build: a change of it starts the configuration afresh.
build_key() {
  local compiler
  compiler=$(command -v -- "${CXX:-c++}" || true)
  printf '%s\n' "root $root" "compiler $(stat -L -c '%n %s %Y' -- "$compiler" 2>/dev/null || true)" \
    "nvcc $(command -v nvcc || true)" "CXXFLAGS ${CXXFLAGS-}" "LDFLAGS ${LDFLAGS-}" "CUDACXX ${CUDACXX-}" \
    "options ${QWEN_CMAKE_ARGS-}"
}

# stamp_text DIR: what has to be the same for the program in DIR to be up to date, other than the sources.
stamp_text() {
  build_key
  stat -c '%n %s %Y' -- "$1/CMakeCache.txt" 2>/dev/null || true
}

# build_is_fresh DIR: the program in DIR is what the sources would give. The stamp has the time at which the last
# successful build began. A change of contents, mode, time or name shows in a ctime; a deletion in its folder's.
build_is_fresh() {
  local changed
  [[ -x $1/bin/qwen && -f $1/.stamp && $(<"$1/.stamp") == "$(stamp_text "$1")" ]] || return 1
  changed=$(find "$root"/{core,loader,backends,tools,cmake,CMakeLists.txt,CMakePresets.json} \
    -cnewer "$1/.stamp" -print -quit 2>/dev/null) && [[ -z $changed ]]
}

# locked DIR COMMAND...: runs COMMAND while no other script works in the build folder DIR.
locked() (
  mkdir -p -- "$1"
  exec 9>"$1/.lock"
  if ! flock -n 9; then
    say "Waiting for another build in $1"
    flock 9
  fi
  "${@:2}"
)

# configure PRESET DIR [CMAKE_ARG...]: call it locked.
configure() {
  local preset=$1 dir=$2 options
  shift 2
  read -r -a options <<<"${QWEN_CMAKE_ARGS-}"
  if [[ -f $dir/.key && $(<"$dir/.key") != "$(build_key)" ]]; then
    say "The compiler, an option or the folder is not that of the last build: configuring afresh"
    rm -rf -- "$dir/CMakeCache.txt" "$dir/CMakeFiles"
  fi
  if [[ ! -f $dir/CMakeCache.txt ]] && command -v ninja >/dev/null; then options+=(-G Ninja); fi
  cmake -S "$root" --preset "$preset" "$@" "${options[@]}" >&2 </dev/null 9>&- || return 1
  build_key >"$dir/.key"
}

# configure_and_build PRESET DIR TARGET [CMAKE_ARG...]: always asks the build system. Call it locked.
configure_and_build() {
  local preset=$1 dir=$2 target=$3
  shift 3
  rm -f -- "$dir/.stamp"
  # A file that was put back with its old time (mv, cp -p) would not be compiled again: the build goes by times.
  if [[ -f $dir/.started ]]; then
    find "$root"/{core,loader,backends,tools,tests,cmake} -type f -cnewer "$dir/.started" ! -newer "$dir/.started" \
      -exec touch -- {} + || true
  fi
  : >"$dir/.started" || return 1 # its time: before anything was read
  configure "$preset" "$dir" "$@" || return 1
  cmake --build "$dir" --target "$target" --parallel "$(nproc)" >&2 </dev/null 9>&- || return 2
  stamp_text "$dir" >"$dir/.stamp.new" && touch -r "$dir/.started" -- "$dir/.stamp.new" || return 2
  mv -f -- "$dir/.stamp.new" "$dir/.stamp" || return 2
}

# build PRESET DIR TARGET "GROUP..." [CMAKE_ARG...]: installs the packages of the groups that are missing, configures and
# builds. Ends the script if that fails.
build() {
  local groups status=0
  read -r -a groups <<<"$4"
  ensure_packages "${groups[@]}"
  locked "$2" configure_and_build "$1" "$2" "$3" "${@:5}" || status=$?
  case $status in
    0) ;;
    1)
      if ! command -v apt-get >/dev/null; then
        say "Needed to build (names of Debian's packages):"
        # shellcheck disable=SC2046  # one argument per package
        print_packages $(packages_of "${groups[@]}")
      fi
      die "the build could not be configured" "the reason is above; without $2 it starts afresh"
      ;;
    *) die "the build failed" "the reason is above" ;;
  esac
}
