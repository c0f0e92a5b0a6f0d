# shellcheck shell=bash
# What the scripts share. Source it; it changes nothing by itself.

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "error: $*"
  exit 1
}

# Prints the first Python of at least 3.11: $PYTHON if that is set, else what is on PATH.
find_python() {
  local candidate
  local -a candidates=(python3 python3.13 python3.12 python3.11 python3.14)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  if [ -n "${PYTHON:-}" ]; then
    fail "PYTHON=$PYTHON is not a Python of at least 3.11"
  fi
  fail "Python 3.11 or newer is needed: install it, or say where it is with PYTHON=/path/to/python"
}

# debian_install PACKAGE…: installs with apt where that is possible without asking; returns 1 where it is not.
debian_install() {
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || return 1
  say "Installing Debian packages: $*"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 &&
    apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@" >&2
}

# make_venv FOLDER LOCK: the folder is a virtual environment that holds what the lock names; quick when it already does.
make_venv() {
  local folder=$1 lock=$2 python marker digest
  python=$(find_python)
  marker=$folder/.installed-${lock##*/}
  digest=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$lock")
  (
    # Two scripts started at once build it one after the other, where flock exists.
    if command -v flock >/dev/null; then
      exec 9<"${BASH_SOURCE[0]}"
      flock 9
    fi
    if ! "$folder/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      say "Making $folder with $python"
      "$python" -m venv --clear "$folder" >&2 || {
        # Debian ships venv apart from Python.
        debian_install "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" ||
          fail "$python cannot make a virtual environment; on Debian and Ubuntu install python3-venv"
        "$python" -m venv --clear "$folder" >&2
      }
    fi
    if [ "$(cat "$marker" 2>/dev/null)" != "$digest" ]; then
      say "Installing what $lock names into $folder (this can take a minute)"
      "$folder/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
        --require-hashes --no-deps -r "$lock" >&2
      printf '%s\n' "$digest" >"$marker"
    fi
  )
}

# link_project FOLDER ROOT: the virtual environment imports poe_gateway from ROOT and has the command poe-gateway.
link_project() {
  local folder root site launcher
  folder=$(cd "$1" && pwd)
  root=$(cd "$2" && pwd)
  site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  printf '%s\n' "$root" >"$site/poe_gateway_checkout.pth"
  launcher=$folder/bin/poe-gateway
  printf '#!/bin/sh\nexec "%s/bin/python" -m poe_gateway "$@"\n' "$folder" >"$launcher.$$"
  chmod 755 "$launcher.$$"
  mv -f "$launcher.$$" "$launcher"
}

# ensure_mongod_runs PYTHON: installs the system libraries that the embedded mongod lacks, or says which they are.
ensure_mongod_runs() {
  local mongod said packages="libcurl4 libssl3 liblzma5"
  mongod=$("$1" -c 'from poe_gateway.storage.mongod import find_mongod; print(find_mongod())' 2>/dev/null) || return 0
  said=$("$mongod" --version 2>&1) || case $said in
    *"shared librar"* | *'version `'*)
      # shellcheck disable=SC2086  # a list
      debian_install $packages ||
        say "The embedded MongoDB lacks system libraries. On Debian and Ubuntu: apt-get install $packages"
      ;;
  esac
}

# ensure_node: the clients written for Node are tried where it is; installs it where that is possible without asking.
ensure_node() {
  command -v node >/dev/null && command -v npm >/dev/null && return
  debian_install nodejs npm || say "There is no node: the tests of clients written for it are skipped."
}
