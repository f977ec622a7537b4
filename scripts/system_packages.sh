# How this machine's distribution installs Python and a compiler, as a command to type. scripts/environment sources it.
# Each function prints one command. OS_RELEASE names another file than the machine's, for tests.
# shellcheck shell=bash

os_release=${OS_RELEASE:-/etc/os-release}

package_manager() {
    local ID='' ID_LIKE='' name
    # shellcheck disable=SC1090
    [ ! -r "$os_release" ] || . "$os_release"
    case " $ID $ID_LIKE " in
        *" debian "* | *" ubuntu "*) printf apt ;;
        *" fedora "* | *" rhel "*) printf dnf ;;
        *suse*) printf zypper ;;
        *" arch "*) printf pacman ;;
        *" alpine "*) printf apk ;;
        *) for name in apt dnf zypper pacman apk brew; do command -v "$name" >/dev/null && printf '%s' "$name" && return; done ;;
    esac
}

# A Debian, an Ubuntu and what is derived from them have exactly one Python, which the code name tells.
apt_python() {
    local VERSION_CODENAME='' UBUNTU_CODENAME='' DEBIAN_CODENAME='' version
    # shellcheck disable=SC1090
    [ ! -r "$os_release" ] || . "$os_release"
    case ${UBUNTU_CODENAME:-${DEBIAN_CODENAME:-$VERSION_CODENAME}} in
        bookworm) version=3.11 ;;
        noble) version=3.12 ;;
        trixie | plucky | questing) version=3.13 ;;
        resolute) version=3.14 ;;
        jammy) printf 'add-apt-repository ppa:deadsnakes/ppa && apt install python3.12 python3.12-venv' && return ;;  # its own is 3.10
        buster | bullseye | bionic | focal) other_python && return ;;  # theirs is too old, and nobody packs another
        *) version=3 ;;
    esac
    printf 'apt install python%s python%s-venv' "$version" "$version"
}

dnf_python() {
    local ID=''
    # shellcheck disable=SC1090
    [ ! -r "$os_release" ] || . "$os_release"
    case $ID in
        rhel | rocky | almalinux | centos | ol) printf 'dnf install python3.12' ;;
        *) printf 'dnf install python3.13' ;;
    esac
}

zypper_python() {
    local VERSION_ID=''
    # shellcheck disable=SC1090
    [ ! -r "$os_release" ] || . "$os_release"
    case $VERSION_ID in
        15.*) printf 'zypper install python312' ;;
        *) printf 'zypper install python313' ;;
    esac
}

other_python() { printf 'uv python install 3.12 (https://docs.astral.sh/uv), or take it from https://www.python.org/downloads'; }

python_command() {
    case $(package_manager) in
        apt) apt_python ;;
        dnf) dnf_python ;;
        zypper) zypper_python ;;
        pacman) printf 'pacman -S python' ;;
        apk) printf 'apk add python3' ;;
        brew) printf 'brew install python@3.13' ;;
        *) other_python ;;
    esac
}

compiler_command() {  # of the Python whose version is $1, such as 3.12: a compiler, and the headers of that Python
    case $(package_manager) in
        apt) printf 'apt install build-essential python%s-dev' "$1" ;;
        dnf) printf 'dnf install gcc-c++ python%s-devel' "$1" ;;
        zypper) printf 'zypper install gcc-c++ python%s-devel' "${1/./}" ;;
        pacman) printf 'pacman -S base-devel' ;;
        apk) printf 'apk add build-base python3-dev' ;;
        brew) printf 'xcode-select --install' ;;
        *) printf 'a C++20 compiler and the headers of Python %s' "$1" ;;
    esac
}
