# SPDX-License-Identifier: Apache-2.0
# Sourced by the other scripts: the Debian packages that building and running needs, and how they are installed.

build_packages=(
  g++ cmake ninja-build pkg-config git ca-certificates
  libcli11-dev libyaml-cpp-dev libspdlog-dev libfmt-dev nlohmann-json3-dev
  libsentencepiece-dev libxxhash-dev zlib1g-dev libzstd-dev
  libopenmpi-dev libhdf5-openmpi-dev
)
test_packages=(catch2 python3 zstd gzip)
bundle_packages=(libhdf5-dev xz-utils binutils)  # scripts/bundle.sh

# install_packages YES PACKAGE...: installs those that are missing; asks first unless YES is 1 or there is no terminal.
install_packages() {
  local yes=$1 package
  shift
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null; then
    echo "error: these packages are missing and there is no apt-get to install them: ${missing[*]}" >&2
    return 3
  fi
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "error: installing ${missing[*]} needs root or sudo" >&2; return 6; }
    as_root=(sudo)
  fi
  echo "Missing packages: ${missing[*]}"
  if [ "$yes" -ne 1 ] && [ -t 0 ]; then
    local answer
    read -r -p "Install them with apt-get? [y/N] " answer
    [[ $answer =~ ^[Yy] ]] || { echo "error: not installed; nothing was changed" >&2; return 3; }
  fi
  "${as_root[@]}" apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
