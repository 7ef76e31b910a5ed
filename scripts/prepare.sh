#!/bin/sh
# Installs the Debian packages that the tests need and the machine lacks. What has a
# service is installed without starting it: tests start servers of their own.
set -eu

packages=''

# need PACKAGES COMMAND... names the packages to install unless one of the commands is
# there. Debian keeps some out of the path of ordinary users.
need() {
	wanted=$1
	shift
	for command; do
		if PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null; then
			return
		fi
	done
	packages="$packages $wanted"
}

need 'gcc libc6-dev' gcc # the race detector
if [ ! -e /usr/include/stdlib.h ]; then
	packages="$packages libc6-dev"
fi
if ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
	need postgresql postgres
fi

for proxy in nginx apache2 haproxy caddy; do
	need "$proxy" "$proxy"
done
need varnish varnishd
need prometheus promtool # the tests of the alert rules
need tmux tmux # a terminal for waxwing chat
need 'chromium-headless-shell fonts-dejavu-core' chromium-headless-shell chromium google-chrome # pages of other origins

if [ -z "$packages" ]; then
	exit 0
fi

root=''
if [ "$(id -u)" != 0 ]; then
	root='sudo'
fi
if ! command -v apt-get >/dev/null || { [ -n "$root" ] && ! command -v sudo >/dev/null; }; then
	echo "make test needs:$packages (the names of Debian's packages)." >&2
	echo "Install them, or run it as root or with sudo on Debian; make check does without services." >&2
	exit 1
fi

# A package's scripts ask policy-rc.d before they start a service; 101 forbids it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap '$root rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
	$root chmod 755 "$policy"
fi

# install waits for another apt-get to finish instead of giving up at once.
install() {
	$root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
}

echo "installing:$packages"
$root apt-get -q -o DPkg::Lock::Timeout=120 update
case "$packages" in
*postgresql*)
	install postgresql-common
	$root sed -i 's/^#\{0,1\} *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
	;;
esac
# shellcheck disable=SC2086 # it is a list
install $packages
