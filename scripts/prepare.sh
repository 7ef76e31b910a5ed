#!/bin/sh
# Installs the Debian packages that `make test` needs and the machine lacks: a C
# compiler for the race detector and the PostgreSQL server for the tests, which
# start servers of their own; no cluster is created and no service is started.
set -eu

compiler=''
database=''
if ! command -v gcc >/dev/null || [ ! -e /usr/include/stdlib.h ]; then
	compiler='gcc libc6-dev'
fi
if ! command -v postgres >/dev/null && ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
	database='postgresql'
fi
if [ -z "$compiler$database" ]; then
	exit 0
fi

root=''
if [ "$(id -u)" != 0 ]; then
	root='sudo'
fi
if ! command -v apt-get >/dev/null || { [ -n "$root" ] && ! command -v sudo >/dev/null; }; then
	echo "make test needs: $compiler $database (the names of Debian's packages)." >&2
	echo "Install them, or run it as root or with sudo on Debian; make check does without PostgreSQL." >&2
	exit 1
fi

# install waits for another apt-get to finish instead of giving up at once.
install() {
	$root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
}

echo "installing: $compiler $database"
$root apt-get -q -o DPkg::Lock::Timeout=120 update
if [ -n "$compiler" ]; then
	install $compiler
fi
if [ -n "$database" ]; then
	install postgresql-common
	$root sed -i 's/^#\{0,1\} *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
	install "$database"
fi
