#!/bin/bash
# Builds the images tramo and tramo-worker from this checkout, with docker, podman or buildah: the first that works here, or
# the one that ENGINE names. IMAGE_PREFIX goes before their names, such as registry.example.com/ours/. Arguments go to the
# engine: --platform linux/arm64, --build-arg GO_IMAGE=...
set -euo pipefail
cd "$(dirname "$0")/../.."

version=$(sed -n 's/^const Version = "\(.*\)"$/\1/p' telemetry/version.go)
revision=$(git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || echo unknown)

# works says whether an engine is there and can build: a docker without its daemon cannot.
works() {
	command -v "$1" >/dev/null 2>&1 && "$1" info >/dev/null 2>&1
}

engine=${ENGINE:-}
if [ -z "$engine" ]; then
	for engine in docker podman buildah none; do
		! works "$engine" || break
	done
elif ! works "$engine"; then
	engine=none
fi
# HEALTHCHECK exists in Docker's format of images only, which podman and buildah do not choose by themselves.
case $engine in
docker) build=(docker build) ;;
podman) build=(podman build --format docker) ;;
buildah) build=(buildah build --format docker) ;;
*)
	cat >&2 <<-END
		No container engine works here: an image needs docker with its daemon running, podman or buildah.

		    apt-get install podman

		Then start again. ENGINE=podman chooses one by name.
	END
	exit 1
	;;
esac

for target in server worker; do
	name=${IMAGE_PREFIX:-}tramo
	[ $target = server ] || name=$name-worker
	(
		set -x
		"${build[@]}" --target $target --tag "$name:$version" --build-arg "VERSION=$version" \
			--build-arg "REVISION=$revision" "$@" .
	)
done
