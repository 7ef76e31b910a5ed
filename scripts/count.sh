#!/bin/sh
# count.sh: prints for each package its lines of Go and its exported functions, methods and
# types, the largest package first, and the sum of the product: everything but tests and the
# packages that serve tests alone.
set -eu
cd "$(git rev-parse --show-toplevel)"

tests_only='^(interop|internal/(drive|pgserver|pgtest|mlspeer|mutant|testsize|testtmux|testvectors|testwait))$'

git ls-files '*.go' | grep -v -e '_test\.go$' -e '/testdata/' | while read -r file; do
	[ -f "$file" ] || continue
	awk -v folder="$(dirname "$file")" '
		/^func (\([^)]*\) )?[A-Z]/ || /^type [A-Z]/ { exported++ }
		END { print folder, NR, exported + 0 }' "$file"
done | awk -v tests_only="$tests_only" '
	{ lines[$1] += $2; exported[$1] += $3 }
	END {
		for (folder in lines) {
			if (folder ~ tests_only) continue
			printf "%-32s %7d %7d\n", folder, lines[folder], exported[folder] | "sort -k2,2nr"
			sum += lines[folder]
			names += exported[folder]
		}
		close("sort -k2,2nr")
		printf "%-32s %7d %7d\n", "the product", sum, names
	}'
