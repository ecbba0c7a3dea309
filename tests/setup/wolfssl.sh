#!/usr/bin/env bash
# Builds the TLS library from the Debian source package of the running release:
#
#   tests/setup/wolfssl.sh FOLDER [--update]
#
# FOLDER then holds include/, lib/libwolfssl.a, and `stamp`: the version of the source, then how it was built.
# Nothing is done while the stamp is right. Why not the packaged library: it has no assembly at all, and a session
# takes fifteen times the memory (src/README.md, "TLS is wolfSSL, built here").
#
# The source comes with Debian's patches, so with its security updates: when the machine's libwolfssl-dev is newer
# than what was built, or with --update, a newer source is looked for. Sources are asked of the machine's own lists,
# in a folder of ours: nothing on the system is changed, and root is not needed.
set -euo pipefail

folder=$(realpath -m "${1:?usage: wolfssl.sh FOLDER [--update]}")
update=${2:-}
options=$(dirname "$(realpath "$0")")/wolfssl_options.h

flags="-O2 -g -DNDEBUG -fPIC -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=2 -Wa,--noexecstack"
case "$(uname -m)" in
# For the intrinsics; whether the CPU has them is asked at run time.
x86_64) flags="$flags -maes -mpclmul" ;;
aarch64) flags="$flags ${WOLFSSL_FLAGS:-}" ;;
esac
wanted="$(echo "$flags"; gcc --version | head -1; sha256sum <"$options")"

say() { echo "wolfssl: $*"; }

# A second make that comes meanwhile waits, and then finds the work done.
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9

built= # the version
[ ! -e "$folder/stamp" ] || built=$(head -1 "$folder/stamp")

is_built_so() {
    [ -n "$built" ] && [ -e "$folder/lib/libwolfssl.a" ] && [ "$(tail -n +2 "$folder/stamp")" = "$wanted" ]
}
packaged=$(dpkg-query -W -f '${source:Version}' libwolfssl-dev 2>/dev/null || true)
is_older_than_package() { [ -n "$packaged" ] && dpkg --compare-versions "$1" lt "$packaged"; }
if [ -z "$update" ] && is_built_so && ! is_older_than_package "$built"; then
    touch "$folder/stamp"
    exit 0
fi

work=$folder/work
log=$work/log
rm -rf "$work"
mkdir -p "$work"/{lists/partial,cache/archives/partial,sources,objects}

cannot_fetch() {
    if [ -z "$update" ] && is_built_so; then
        say "WARNING: $built is built, $packaged is installed, and its source could not be fetched: $1" >&2
        touch "$folder/stamp"
        exit 0
    fi
    tail -5 "$log" >&2
    cat >&2 <<TEXT
wolfssl: Debian's source package "wolfssl" could not be fetched: $1.
wolfssl: It was asked of the sources in /etc/apt, with deb-src for deb; the log is $log
wolfssl: With no network, or no such package: make WOLFSSL=system links the packaged library (slower, see README.md).
TEXT
    exit 1
}

# ---- the source package ----
# Both forms of lists, asked for sources instead of binaries. Backports are another release.
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ ! -e "$list" ] || sed -nE '/-backports/d; s/^[[:space:]]*deb[[:space:]]/deb-src /p' "$list" \
        >"$work/sources/$(basename "$list" .list).list"
done
for list in /etc/apt/sources.list.d/*.sources; do
    [ ! -e "$list" ] || sed -E 's/^Types:.*/Types: deb-src/; /^Suites:/s/[^[:space:]]+-backports[^[:space:]]*//g' \
        "$list" >"$work/sources/$(basename "$list")"
done
# Read after the machine's own settings, so that its hooks do not run.
cat >"$work/apt.conf" <<CONF
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/sources";
Dir::State::lists "$work/lists";
Dir::Cache "$work/cache";
Dir::Cache::archives "$work/cache/archives";
APT::Sandbox::User "";
CONF

say "fetching Debian's source package"
# A list of somebody else's that has no sources must not stop us: what counts is whether ours is found.
apt-get -q -c "$work/apt.conf" update >"$log" 2>&1 || true
version=
for one in $(apt-cache -c "$work/apt.conf" showsrc --only-source wolfssl 2>>"$log" | sed -n 's/^Version: //p'); do
    if [ -z "$version" ] || dpkg --compare-versions "$one" gt "$version"; then
        version=$one
    fi
done
[ -n "$version" ] || cannot_fetch "no source has it"
! is_older_than_package "$version" || say "WARNING: $packaged is installed, but the newest source is $version" >&2
if [ "$version" = "$built" ] && is_built_so; then
    rm -rf "$work"
    touch "$folder/stamp"
    say "$version is the newest there is, and built"
    exit 0
fi
# apt-get checks the signature of the list and the sums in it; dpkg-source applies Debian's patches.
(cd "$work" && apt-get -q -c "$work/apt.conf" --only-source source "wolfssl=$version") >>"$log" 2>&1 ||
    cannot_fetch "apt-get source failed"
source_folder=$(echo "$work"/wolfssl-*/)
[ -d "$source_folder/wolfcrypt/src" ] || cannot_fetch "it is not what was expected"

# ---- build ----
# Without ./configure: what it decides is in our options, and Debian's source has none before autoconf has run.
# Each file of the source leaves out by itself what the options leave out.
say "building $version (half a minute on two cores)"
cd "$source_folder"
mkdir "$work/include"
cp -r wolfssl "$work/include/"
cp "$options" "$work/include/wolfssl/options.h"
# With Debian's revision, by which somebody can tell which patches are in.
echo "#define WOLFSSL_DEBIAN_VERSION \"$version\"" >>"$work/include/wolfssl/options.h"
files=(src/*.c wolfcrypt/src/*.c)
# Assembly leaves itself out too, but for that of the other 32 bits.
[ "$(uname -m)" != x86_64 ] || files+=($(ls wolfcrypt/src/*.S | grep -v _x86_asm))
[ "$(uname -m)" != aarch64 ] || files+=(wolfcrypt/src/port/arm/armv8-*.c wolfcrypt/src/port/arm/armv8-*.S)
# shellcheck disable=SC2016
printf '%s\n' "${files[@]}" |
    xargs -P "$(nproc)" -I FILE sh -c 'gcc $1 -w -I. -I"$2/include" -include wolfssl/options.h \
        -c -o "$2/objects/$(basename FILE).o" FILE || exit 255' sh "$flags" "$work" >>"$log" 2>&1 ||
    { tail -20 "$log" >&2; say "it did not compile; the whole log is $log" >&2; exit 1; }
rm -f "$work/libwolfssl.a"
ar rcs "$work/libwolfssl.a" "$work"/objects/*.o

# Options that do not go together show here, not in the first program that needs the missing function.
gcc -shared -o "$work/whole.so" -Wl,-z,defs -Wl,--whole-archive "$work/libwolfssl.a" -Wl,--no-whole-archive -lm -pthread \
    >>"$log" 2>&1 || { tail -20 "$log" >&2; say "it is not whole; the log is $log" >&2; exit 1; }

rm -rf "$folder/stamp" "$folder/include" "$folder/lib"
mv "$work/include" "$folder/include"
mkdir "$folder/lib"
mv "$work/libwolfssl.a" "$folder/lib/"
cp debian/copyright "$folder/copyright"
printf '%s\n%s\n' "$version" "$wanted" >"$folder/stamp"
cd /
rm -rf "$work"
say "$version is built"
