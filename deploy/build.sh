#!/usr/bin/env bash
#
# Builds what is installed: the binary, its manual pages, completions for shells, the systemd unit.
#
#   deploy/build.sh --output DIR             compile a release and lay it out under DIR as under /
#   deploy/build.sh --output DIR --image     only what a container needs, with the libraries of the
#                                            system that it is linked with
#   deploy/build.sh --output DIR --binary B  lay out a binary that is there instead of compiling one
#
# The Dockerfile runs this and nothing else, so an image can be tried out without Docker:
#
#   deploy/build.sh --output /tmp/image --image && sudo chroot /tmp/image /usr/bin/roomkeeper version
#
# The commit that `roomkeeper version --json` names is ROOMKEEPER_COMMIT, or git's where that is not set.

set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/.." && pwd)"

output="" binary="" image=""

die() {
    printf 'deploy/build.sh: %s\n' "$*" >&2
    exit 1
}

while (($# > 0)); do
    case "$1" in
    --output)
        output="${2:-}"
        shift
        ;;
    --binary)
        binary="${2:-}"
        shift
        ;;
    --image) image=yes ;;
    *) die "no option $1; read the head of this file" ;;
    esac
    shift
done
[[ -n "$output" ]] || die "say where to: --output DIR"

compile() {
    local commit="${ROOMKEEPER_COMMIT:-}"
    if [[ -z "$commit" ]] && command -v git >/dev/null 2>&1; then
        commit="$(git -C "$root" rev-parse HEAD 2>/dev/null || true)"
    fi
    (cd "$root" && ROOMKEEPER_COMMIT="$commit" cargo build --release --locked -p bootstrap)
    binary="${CARGO_TARGET_DIR:-$root/target}/release/roomkeeper"
}

# The system's libraries that the binary is linked with, and the loader, at the paths they have here.
libraries() {
    local library
    ldd "$binary" | grep -o '/[^ ]*' | sort -u | while read -r library; do
        install -D -m 755 "$(readlink -f "$library")" "$output$library"
    done
}

# For a container: no shell, no package manager, nobody's account, and of what debuggers read only the functions'
# names. The numbers of their lines are three quarters of the binary.
lay_out_image() {
    strip --strip-debug "$output/usr/bin/roomkeeper"
    install -d -m 755 "$output/etc" "$output/etc/roomkeeper"
    install -d -m 1777 "$output/tmp"
    # Written by the user that the image runs as.
    install -d -m 750 "$output/var/lib/roomkeeper"
    if (($(id -u) == 0)); then chown 10001:10001 "$output/var/lib/roomkeeper"; fi
    if [[ -f /etc/ssl/certs/ca-certificates.crt ]]; then
        install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$output/etc/ssl/certs/ca-certificates.crt"
    fi
    libraries
}

lay_out_package() {
    local man="$output/usr/share/man/man1" unit="$output/usr/lib/systemd/system"
    install -d -m 755 "$man" "$unit" "$output/usr/share/bash-completion/completions" \
        "$output/usr/share/zsh/site-functions" "$output/usr/share/fish/vendor_completions.d"
    "$binary" man --dir "$man"
    "$binary" completions bash >"$output/usr/share/bash-completion/completions/roomkeeper"
    "$binary" completions zsh >"$output/usr/share/zsh/site-functions/_roomkeeper"
    "$binary" completions fish >"$output/usr/share/fish/vendor_completions.d/roomkeeper.fish"
    install -m 644 "$here/roomkeeper.service" "$unit/roomkeeper.service"
    install -D -m 644 "$root/LICENSE" "$output/usr/share/doc/roomkeeper/LICENSE"
    "$binary" config default >"$output/usr/share/doc/roomkeeper/roomkeeper.toml"
}

[[ -n "$binary" ]] || compile
[[ -x "$binary" ]] || die "there is no binary $binary"
install -D -m 755 "$binary" "$output/usr/bin/roomkeeper"
if [[ -n "$image" ]]; then lay_out_image; else lay_out_package; fi
