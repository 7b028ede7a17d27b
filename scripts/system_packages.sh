# Sourced by the other scripts: what Debian and Ubuntu need beside Python to show a Qt window.
install_system_packages() {
  command -v apt-get >/dev/null || return 0
  local wanted="python3-venv libgomp1 xvfb xauth libgl1 libgl1-mesa-dri libegl1 libglib2.0-0 libfontconfig1
    libdbus-1-3 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1
    libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xfixes0"
  local missing="" package
  for package in $wanted; do
    dpkg -s "$package" >/dev/null 2>&1 || dpkg -s "${package}t64" >/dev/null 2>&1 || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  local sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing
}

make_environment() {
  # .venv with this package, the named extras and the tested versions of everything.
  [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
  # Python compiles what is imported when it is: a small part of what is installed.
  .venv/bin/python -m pip install -q --no-compile -c constraints.txt -e ".[$1]"
}
