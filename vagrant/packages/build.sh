#!/bin/sh
# Builds vsfwctl, vsfwd and vsfwd-manager as Debian packages into build/packages. `./run package` runs it, with
# .venv and what Debian has to build packages there.
set -eu
cd "$(dirname "$0")/../.."
out=$PWD/build/packages
rm -rf "$out"
mkdir -p "$out/source"
cp -r vagrant/packages/debian "$out/source"
cd "$out/source"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$OLDPWD/pyproject.toml")
cat > debian/changelog <<TEXT
vsfwd ($version) bookworm; urgency=medium

  * See CHANGELOG.md.

 -- $(sed -n 's/^Maintainer: //p' debian/control)  $(date -R -d "@$(git -C "$OLDPWD" log -1 --format=%ct)")
TEXT

# ./run has installed what is needed; a compiler, which every Debian package is said to need, is not.
CHECKOUT=$OLDPWD dpkg-buildpackage --no-check-builddeps --build=binary --unsigned-changes >&2
cd "$out"
rm -r source
lintian --fail-on error,warning ./*.deb >&2
ls "$out"/*.deb
