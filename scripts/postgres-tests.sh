#!/bin/sh
# Prints a pattern for go test -run of the tests in some folders that ask for PostgreSQL themselves.
for folder; do
	cat "$folder"/*_test.go
done | awk '
	/^}/ { name = "" }
	/^func Test/ { name = $2; sub(/\(.*/, "", name) }
	name != "" && /[oO]nBoth\(|pgtest\.(URL|Start)/ { printf "%s%s", separator, name; name = ""; separator = "|" }
	BEGIN { printf "^(" }
	END { print ")$" }'
