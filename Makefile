# The commands of a working day. Only Go, git and make are needed for run, demo
# and check's build; test installs what else it needs (see scripts/prepare.sh).

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

COMMIT  := $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)
VERSION := $(shell git describe --tags --abbrev=0 2>/dev/null)
LDFLAGS := -X main.commit=$(COMMIT) $(if $(VERSION),-X main.version=$(VERSION))

# SQLite is C that was translated to Go, with a driver that computes with pointers: the race
# detector and the checks of pointers would look at each of its steps, find nothing, and make
# reads seven times as slow. So it would with the arithmetic of Go's elliptic curves, which makes
# up most of the work of mls. Their callers are checked. internal/drive has the same flags.
RACE = -race -gcflags='modernc.org/...=-race=false -d=checkptr=0' \
	-gcflags='crypto/internal/fips140/edwards25519/...=-race=false' \
	-gcflags='crypto/internal/fips140/nistec/...=-race=false'

# A process that was built with the race detector would wait a second at its end, for the reports
# of threads that the end of a test stops anyway.
export GORACE = atexit_sleep_ms=0

# How long the tests of one package may take on a machine that others use too.
PATIENCE = 30m

# The packages with tests that use PostgreSQL; the command has a script for it besides.
POSTGRES = $(addprefix ./,$(sort $(dir $(shell grep -rl --include='*_test.go' '"waxwing.im/waxwing/internal/pgtest"' client internal))))

.PHONY: build run demo check lint test prove full bench pairs interop ts-mls atproto lexicon-check wycheproof fuzz fuzz-short property mutants

# One static binary. SQLite is pure Go, so no C compiler is needed.
build:
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w $(LDFLAGS)' -o bin/ ./cmd/waxwing

# A server on 127.0.0.1:8420 with its database in ./data.
run: build
	@exec bin/waxwing serve

# Three people, one server, ten lost connections and a crash, in one process.
demo: build
	@exec bin/waxwing demo

# Checks a change: needs no services, runs on SQLite only and takes
# minutes. The race detector needs a C compiler.
check: lint
	WAXWING_TEST_POSTGRES=off go test $(RACE) -timeout $(PATIENCE) ./...

lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not formatted (gofmt -w): $$unformatted"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	GOOS=js GOARCH=wasm go build ./mls/... ./client

# Every suite at quick sizes, on SQLite and PostgreSQL; what continuous integration runs. With
# CI=true a missing service fails the tests that would skip. That check passes without PostgreSQL
# is shown by the tests that use it, with PostgreSQL off and without what runs on SQLite below anyway. It
# ends with go test, so that its summary is printed last.
test:
	@scripts/prepare.sh
	@$(MAKE) --no-print-directory ts-mls atproto lexicon-check wycheproof
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory fuzz FUZZTIME=15s FUZZERS=4
	@$(MAKE) --no-print-directory prove
	WAXWING_TEST_POSTGRES=off CI=true go test $(RACE) -timeout $(PATIENCE) -run "$$(scripts/postgres-tests.sh $(POSTGRES))" -skip '/^sqlite$$|//^sqlite$$' $(POSTGRES)
	WAXWING_TEST_POSTGRES=off CI=true go test $(RACE) -timeout $(PATIENCE) -run '^TestScripts$$/^(config|postgres|serve)$$' ./cmd/waxwing
	CI=true go test $(RACE) -timeout $(PATIENCE) ./...

# The rows of the risk register and of the threat model at the quick size, on both databases.
prove: build
	bin/waxwing prove --quick --built --database both

# Every suite at full size (internal/testsize), measurements included: attacks, proxies at
# their own timeouts, a thousand lost connections, every point of a crash. It takes hours
# and needs an idle machine. It runs without the race detector, which test has, to measure times.
full:
	@scripts/prepare.sh
	@$(MAKE) --no-print-directory ts-mls atproto lexicon-check wycheproof
	@$(MAKE) --no-print-directory lint fuzz-short property mutants
	go test -count 1000 -run '^TestSingleFlight$$' ./internal/identity
	CI=true WAXWING_FULL=1 go test -count 1 -p 1 -timeout 120m ./...

# Our MLS and ts-mls in the same groups, and our identity checked by the AT
# Protocol's own libraries (interop/README.md). Needs node 20 and npm.
interop: ts-mls atproto
	go test -count=1 -v ./interop

# Node packages from their lock files, which name no host; where node or npm is missing
# the tests that need them are skipped with a message. The AT Protocol's own reader of lexicons
# is for api/xrpc's tests.
define with-npm
@if command -v node >/dev/null && command -v npm >/dev/null; then \
	$(MAKE) --no-print-directory $(1)/node_modules/.package-lock.json; \
else \
	echo "NOT TESTED with $(2): node or npm is missing"; \
fi
endef

ts-mls:
	$(call with-npm,interop/ts,ts-mls)

atproto:
	$(call with-npm,interop/atproto,@atproto/xrpc-server)

lexicon-check:
	$(call with-npm,lexicons/node,@atproto/lexicon)

# The vectors of Project Wycheproof, which tests read where they are: in Go's cache of modules.
wycheproof:
	go -C interop/wycheproof mod download

%/node_modules/.package-lock.json: %/package.json %/package-lock.json
	npm --prefix $* ci --ignore-scripts
	@touch $@

# Fuzzes the parsers of mls and of the doors for FUZZTIME each, FUZZERS of them at once; 15 s
# each is part of test, a minute each of mls of full.
FUZZTIME   = 10m
FUZZERS    = 1
FUZZ_MLS   = mls/wire:FuzzWire mls:FuzzProcess mls:FuzzJoin mls:FuzzState
FUZZ_DOORS = internal/identity:FuzzXRPCToken internal/identity:FuzzVerifyToken internal/identity:FuzzDocument internal/identity:FuzzLocate \
	api/xrpc:FuzzBytes api/xrpc:FuzzQuery api/xrpc:FuzzDecode api/xrpc:FuzzCBOR api/xrpc:FuzzClientFrameText \
	internal/xrpcserver:FuzzSendMessage internal/xrpcserver:FuzzClientFrame internal/xrpcserver:FuzzPlaces internal/xrpcserver:FuzzCursor \
	api/gateway:FuzzValidate api/gateway:FuzzDecodeFrame internal/gatewayserver:FuzzParseID internal/gatewayserver:FuzzStream \
	internal/gatewayserver:FuzzHTTP internal/gatewayserver:FuzzFrames client:FuzzParseCertificate client:FuzzContent client:FuzzName
FUZZ       = $(FUZZ_MLS) $(FUZZ_DOORS)

fuzz:
	@printf '%s\n' $(subst :, ,$(foreach f,$(FUZZ),'$f')) | xargs -P $(FUZZERS) -L 1 sh -c 'scripts/fuzz.sh "./$$0" "$$1" $(FUZZTIME)'

fuzz-short:
	@$(MAKE) --no-print-directory fuzz FUZZTIME=1m FUZZ="$(FUZZ_MLS)"

# The whole of the random test of mls: 5 000 operations.
property:
	go test -count=1 -v -timeout 60m -run '^TestRandomGroups$$' ./mls -operations 5000

# Takes every defence of mls away, one at a time, and requires that a test fails; then
# defences of the server and of the SDK, and requires that a row of waxwing prove fails. With
# UPDATE=1 it writes docs/mutants.md.
mutants:
	go test -count=1 -v -timeout 60m -run '^TestMutants$$' ./mls -mutants
	go test -count=1 -v -timeout 60m -run '^TestMutants$$' ./internal/prove -mutants $(if $(UPDATE),-update)

# The append path beside the same rows written raw, on both databases, durable.
bench:
	go test -run '^$$' -bench . -benchtime 10s -timeout 60m ./internal/...

# The benchmarks of appends, fan-out and sendMessage, this tree beside the commit BASE, in
# turns; prints the ratios (docs/performance.md).
BASE  = HEAD
PAIRS = 10
pairs:
	@scripts/pairs.sh $(BASE) $(PAIRS)
