#!/bin/sh
# pairs.sh BASE [PAIRS [BENCHTIME]]: runs the benchmarks of appends, fan-out and
# sendMessage of commit BASE and of this tree in turns, and prints for each the median of
# the ratios tree/BASE of one pair, with its 90 % interval by order statistics. A ratio
# above 1 is a faster tree. Other load of the machine affects both halves of a pair alike.
set -eu

base=${1:?usage: scripts/pairs.sh BASE [PAIRS [BENCHTIME]]}
pairs=${2:-10}
benchtime=${3:-3s}
benchmarks='^(BenchmarkSocketAppends|BenchmarkFanOut|BenchmarkSendMessage|BenchmarkReconnect)$'
packages='server core' # that have them

root=$(git rev-parse --show-toplevel)
cd "$root"
work=$(mktemp -d "${TMPDIR:-/tmp}/waxwing-pairs-XXXXXX")
trap 'git worktree remove --force "$work/base" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

git worktree add --quiet --detach "$work/base" "$base"
for package in $packages; do
	(cd "$work/base" && go test -c -o "$work/base-$package.test" "./internal/$package")
	go test -c -o "$work/tree-$package.test" "./internal/$package"
done

# run SIDE PAIR appends one line "SIDE PAIR BENCHMARK RATE" for each benchmark. The rate is
# what the benchmark reports per second, or else the operations.
run() {
	for package in $packages; do
		(cd "internal/$package" && "$work/$1-$package.test" -test.run '^$' -test.bench "$benchmarks" -test.benchtime "$benchtime" -test.timeout 60m) >"$work/out" ||
			{ cat "$work/out" >&2; echo "a benchmark of $1 failed" >&2; exit 1; }
		awk -v side="$1" -v pair="$2" '/^Benchmark/ {
			rate = ""
			for (i = 3; i < NF; i++) {
				if ($(i + 1) ~ /\/s$/) rate = $i
				if ($(i + 1) == "ns/op" && rate == "" && $i > 0) rate = 1e9 / $i
			}
			print side, pair, $1, rate
		}' "$work/out" >>"$work/rates"
	done
}

pair=1
while [ "$pair" -le "$pairs" ]; do
	echo "pair $pair of $pairs" >&2
	if [ $((pair % 2)) = 1 ]; then
		run base "$pair"
		run tree "$pair"
	else
		run tree "$pair"
		run base "$pair"
	fi
	pair=$((pair + 1))
done

awk '
{ rate[$1, $2, $3] = $4; names[$3]; if ($2 > n) n = $2 }
END {
	# The k-th lowest and k-th highest of n ratios hold the median between them with
	# probability 1 - 2 P(fewer than k of n coins show heads): the narrowest with 90 %.
	k = 0; below = 0; term = 1
	for (i = 0; i < n; i++) term /= 2
	for (i = 0; i < n; i++) {
		below += term
		if (2 * below > 0.1) break
		k = i + 1
		term *= (n - i) / (i + 1)
	}
	printf "%-32s %8s   %s\n", "benchmark", "median", "90 % interval"
	for (name in names) {
		for (i = 1; i <= n; i++) ratio[i] = rate["tree", i, name] / rate["base", i, name]
		for (i = 2; i <= n; i++) { v = ratio[i]; for (j = i - 1; j > 0 && ratio[j] > v; j--) ratio[j + 1] = ratio[j]; ratio[j + 1] = v }
		median = n % 2 ? ratio[(n + 1) / 2] : (ratio[n / 2] + ratio[n / 2 + 1]) / 2
		interval = k ? sprintf("%.3f to %.3f", ratio[k], ratio[n + 1 - k]) : "too few pairs"
		printf "%-32s %8.3f   %s\n", name, median, interval | "sort"
	}
}' "$work/rates"
