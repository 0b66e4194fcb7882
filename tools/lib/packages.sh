# shellcheck shell=bash
# The Debian packages that the scripts need, and how they get installed. Sourced, not run.

# One line per package: who needs it, the package, a command that makes it unnecessary (or -), what it is for.
package_table() {
  cat <<'TABLE'
build g++                 c++        C++20 compiler
build cmake               cmake      build system, 3.25 or later
build ninja-build         ninja      runs the build's commands (make does, too)
build pkg-config          pkg-config finds libraries
build libxsimd-dev        -          SIMD wrappers: the CPU backend
build libcli11-dev        -          command line parser: the qwen program
build libpcre2-dev        -          regular expressions: the tokenizer
build libutf8proc-dev     -          Unicode tables: the tokenizer
build librandom123-dev    -          counter-based random numbers: the sampler
build nlohmann-json3-dev  -          JSON: chat templates, --json
test  libgtest-dev        -          GoogleTest: the tests
test  python3             python3    the style check and the tests of the command line
test  python3-numpy       -          the test of repro bundles
lint  clang-format-14     -          the one formatter version that decides
lint  clang-tidy-14       -          static analysis
lint  shellcheck          shellcheck static analysis of shell scripts
model python3-pip         -          downloads the real test model
TABLE
}

say() { printf '%s\n' "$*" >&2; }

# die MESSAGE [HINT]
die() {
  printf 'error: %s\n' "$1" >&2
  [[ -z ${2-} ]] || printf 'hint: %s\n' "$2" >&2
  exit 1
}

# print_packages PACKAGE...: each with its purpose, on stderr
print_packages() {
  local group package command purpose
  while read -r group package command purpose; do
    if [[ " $* " == *" $package "* ]]; then printf '  %-20s %s\n' "$package" "$purpose" >&2; fi
  done < <(package_table)
}

# packages_of GROUP...: the names of all packages of these groups
packages_of() {
  local group package command purpose
  while read -r group package command purpose; do
    if [[ " $* " == *" $group "* ]]; then printf '%s\n' "$package"; fi
  done < <(package_table)
}

# missing_packages GROUP...: what of these groups is not there. Without dpkg only commands can be looked for;
# libraries are then left to the configuration to find.
missing_packages() {
  local group package command purpose installed=
  if command -v dpkg-query >/dev/null; then
    # shellcheck disable=SC2016,SC2046  # dpkg-query's own variables; one argument per package
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $(packages_of "$@") 2>/dev/null || true)
  fi
  while read -r group package command purpose; do
    [[ " $* " == *" $group "* ]] || continue
    if [[ $command != - ]] && command -v "$command" >/dev/null; then continue; fi
    if [[ $'\n'$installed$'\n' == *$'\n'"installed $package"$'\n'* ]]; then continue; fi
    if [[ $command == - ]] && ! command -v dpkg-query >/dev/null; then continue; fi
    printf '%s\n' "$package"
  done < <(package_table)
}

# ensure_packages GROUP...: installs what is missing, after saying so.
ensure_packages() {
  local missing as_root=()
  mapfile -t missing < <(missing_packages "$@")
  [[ ${#missing[@]} -gt 0 ]] || return 0
  if ! command -v apt-get >/dev/null; then
    say "These are needed and are not here (names of Debian's packages):"
    print_packages "${missing[@]}"
    die "this system has no apt-get to install them with" "install them with this system's own package manager"
  fi
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || die "packages are missing: ${missing[*]}" "as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "Installing Debian packages (${as_root[*]+sudo }apt-get install):"
  as_root+=(env DEBIAN_FRONTEND=noninteractive)
  print_packages "${missing[@]}"

  local apt=("${as_root[@]}" apt-get -q -o DPkg::Lock::Timeout=600)
  local install=("${apt[@]}" install -y --no-install-recommends "${missing[@]}")
  local updated=no
  # The package lists are fetched only if they do not know the packages, or know versions that are gone.
  if ! apt-get -q install --simulate --no-install-recommends "${missing[@]}" >/dev/null 2>&1 </dev/null; then
    "${apt[@]}" update >&2 </dev/null || die "apt-get update failed" "is there a network?"
    updated=yes
  fi
  "${install[@]}" >&2 </dev/null && return 0
  [[ $updated == no ]] || die "apt-get cannot install ${missing[*]}"
  "${apt[@]}" update >&2 </dev/null || die "apt-get update failed" "is there a network?"
  "${install[@]}" >&2 </dev/null || die "apt-get cannot install ${missing[*]}"
}
