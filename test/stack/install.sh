#!/bin/bash
# Installs what Tramo needs and this machine lacks, by apt. Usage: install.sh run|test
#
# "run" is what building and running takes; "test" adds what only the tests drive. With nothing missing, which is
# checked first, it touches neither apt nor sudo. No service is started, nor left to start at boot: Tramo runs its own.
set -euo pipefail
cd "$(dirname "$0")/../.."

scope=${1:-run}
case $scope in
run | test) ;;
*)
	echo "usage: $0 run|test" >&2
	exit 2
	;;
esac

have() { command -v "$1" >/dev/null 2>&1; }

check_go() {
	local wanted
	wanted=$(sed -n 's/^go //p' go.mod)
	if ! have go; then
		echo "Tramo needs Go $wanted or newer, and there is no go in PATH: see https://go.dev/doc/install" >&2
		exit 1
	fi
	if ! go list -m >/dev/null 2>&1; then
		echo "Tramo needs Go $wanted or newer, and this is $(cd / && go version): see https://go.dev/doc/install" >&2
		go list -m >/dev/null || true # says why, in Go's words
		exit 1
	fi
}

# A browser from snap does not count: it sees neither /tmp nor hidden directories, where tests keep their files.
have_browser() {
	local name path
	for name in google-chrome-stable google-chrome chromium chromium-browser; do
		path=$(command -v "$name" 2>/dev/null) || continue
		case $path in /snap/*) continue ;; esac
		if head -c 2 "$path" | grep -q '#!' && grep -q /snap/ "$path"; then continue; fi
		return 0
	done
	return 1
}

packages=()
need() { packages+=("$@"); }

collect() {
	compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || have initdb || need postgresql
	[ -x /usr/sbin/clamd ] || have clamd || need clamav-daemon
	have gcc || need gcc libc6-dev
	have pkg-config || need pkg-config
	{ have pkg-config && pkg-config --exists vips; } || need libvips-dev
	[ -e /etc/ssl/certs/ca-certificates.crt ] || need ca-certificates
	if ! have npm || ! have node || [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 18 ]; then
		need nodejs npm
	fi
	# Every site sends PDFs and films. Tramo also runs without these, but then they have no thumbnails.
	{ have pdftoppm && have pdfinfo; } || need poppler-utils
	have ffmpeg || need ffmpeg
	[ "$scope" = test ] || return 0
	have exiftool || need libimage-exiftool-perl
	{ have vips && have vipsthumbnail; } || need libvips-tools
	have redis-server || need redis-server
	have spin || need spin # checks test/model
	have clamdscan || need clamdscan
	have_browser || need chromium
}

check_go
collect
[ ${#packages[@]} -gt 0 ] || exit 0

echo "Tramo needs packages that this machine lacks: ${packages[*]}"
if ! have apt-get; then
	echo "There is no apt-get here: install the like of them by hand." >&2
	exit 1
fi
if [[ " ${packages[*]} " == *" chromium "* ]] && grep -q '^ID=ubuntu' /etc/os-release; then
	cat >&2 <<-'END'
		Ubuntu has Chromium only as a snap, which the tests cannot drive. Install Google Chrome instead, then start again:

		    curl -fLO https://dl.google.com/linux/direct/google-chrome-stable_current_amd64.deb
		    sudo apt-get install ./google-chrome-stable_current_amd64.deb
	END
	exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	if have sudo && sudo -n true 2>/dev/null; then
		as_root=(sudo -n)
	elif have sudo && [ -t 0 ]; then
		as_root=(sudo)
	else
		cat >&2 <<-END
			Run this as root, then start again:

			    apt-get update && apt-get install --yes --no-install-recommends ${packages[*]}
		END
		exit 1
	fi
fi

# The script that follows runs as root, the packages as its arguments.
"${as_root[@]}" bash -euo pipefail -s -- "${packages[@]}" <<'END'
export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -o DPkg::Lock::Timeout=120 --quiet --yes "$@" </dev/null; }
install() { apt install --no-install-recommends "$@" || { apt update && apt install --no-install-recommends "$@"; }; }

compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null || apt update

# 101: packages may not start their services (/usr/share/doc/init-system-helpers/README.policy-rc.d.gz).
if [ ! -e /usr/sbin/policy-rc.d ]; then
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod +x /usr/sbin/policy-rc.d
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
case " $* " in *" postgresql "*)
	# Else the server's package creates and starts a cluster that nobody asked for.
	conf=/etc/postgresql-common/createcluster.conf
	[ -e "$conf" ] || install postgresql-common
	sed -i 's/^#\? *create_main_cluster *=.*/create_main_cluster = false/' "$conf"
	;;
esac
install "$@"
case " $* " in *" libvips-dev "*)
	# Since Debian 13 libheif reads an iPhone's photos by a plugin, which is only recommended.
	! apt-cache show libheif-plugin-libde265 >/dev/null 2>&1 || install libheif-plugin-libde265
	;;
esac
case " $* " in *" redis-server "*)
	! command -v systemctl >/dev/null || systemctl --quiet disable redis-server.service || true
	;;
esac
case " $* " in *" clamav-daemon "*)
	! command -v systemctl >/dev/null ||
		systemctl --quiet disable clamav-daemon.service clamav-daemon.socket clamav-freshclam.service || true
	;;
esac
END

packages=()
collect
if [ ${#packages[@]} -gt 0 ]; then
	echo "Still missing or too old after the installation: ${packages[*]}" >&2
	exit 1
fi
