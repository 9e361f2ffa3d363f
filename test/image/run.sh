#!/bin/bash
# Builds the images with buildah and runs them, without a container engine and without a registry: make image-test. As root.
#
# Their bases are made by debootstrap, and get the names that the Dockerfile asks for. Everything is below bin/image; bases
# are kept there for the next time.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$PWD/bin/image

[ "$(id -u)" -eq 0 ] || { echo "make image-test needs root, to make the bases and to mount the images" >&2; exit 1; }
missing=()
for tool in buildah bwrap:bubblewrap debootstrap setpriv:util-linux; do
	command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
done
[ ${#missing[@]} -eq 0 ] || {
	echo "make image-test needs more: apt-get install ${missing[*]}" >&2
	exit 1
}

mkdir -p "$work"
# No kernel features beyond what root has in a container: chroot instead of namespaces.
export BUILDAH_ISOLATION=chroot CONTAINERS_STORAGE_CONF=$work/storage.conf
cat >"$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "overlay"
graphroot = "$work/store"
runroot = "$work/run"
END

# base commits a container under a name of the Dockerfile.
base() { # container, name
	buildah commit --quiet --rm "$1" "$2" >/dev/null
	echo "made $2"
}
has() { buildah inspect --type image "$1" >/dev/null 2>&1; }
# install adds packages to a container.
install() { # container, packages
	local c=$1
	shift
	buildah run "$c" sh -c 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq --yes --no-install-recommends install "$@" >/dev/null' -- "$@"
}

image() { sed -n "s/^ARG $1_IMAGE=//p" Dockerfile; }
if ! has "$(image DEBIAN)"; then
	rm -rf "$work/debian"
	debootstrap --variant=minbase --include=ca-certificates trixie "$work/debian" >"$work/debootstrap.log"
	tar -C "$work/debian" --one-file-system -cf "$work/debian.tar" .
	c=$(buildah from scratch)
	buildah add --quiet "$c" "$work/debian.tar" / >/dev/null
	# This machine's authorities: networks that look into TLS have one of their own.
	buildah copy --quiet "$c" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt >/dev/null
	buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$c"
	base "$c" "$(image DEBIAN)"
	rm -rf "$work/debian" "$work/debian.tar"
fi
if ! has "$(image NODE)"; then
	c=$(buildah from --pull-never "$(image DEBIAN)")
	install "$c" nodejs npm
	buildah config --env NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt "$c"
	base "$c" "$(image NODE)"
fi
if ! has "$(image GO)"; then
	c=$(buildah from --pull-never "$(image DEBIAN)")
	install "$c" gcc libc6-dev pkg-config
	buildah copy --quiet "$c" "$(go env GOROOT)" /usr/local/go >/dev/null
	buildah config --env PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin --env GOPATH=/go "$c"
	base "$c" "$(image GO)"
fi

ENGINE=buildah deploy/image/build.sh --pull-never --layers

# The files of each image, where a user who is not root reaches them.
roots=$(mktemp -d)
chmod 755 "$roots"
containers=()
cleanup() {
	umount "$roots"/* 2>/dev/null || true
	rmdir "$roots"/* "$roots"
	buildah rm "${containers[@]}" >/dev/null
}
trap cleanup EXIT
version=$(sed -n 's/^const Version = "\(.*\)"$/\1/p' telemetry/version.go)
for name in tramo tramo-worker; do
	c=$(buildah from --pull-never "localhost/$name:$version")
	containers+=("$c")
	mkdir "$roots/$name"
	mount --bind "$(buildah mount "$c")" "$roots/$name"
done
TRAMO_TEST_IMAGES=$roots go test -tags image -count=1 -v ./test/image
