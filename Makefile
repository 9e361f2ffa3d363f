# make help lists the targets. A target first installs the packages that it needs, unless they are there.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN  := $(CURDIR)/bin
LINT := $(BIN)/tools/golangci-lint
VULN := $(BIN)/tools/govulncheck
VULN_DB := $(BIN)/vulndb

# No VCS stamp: in another user's clone git refuses to answer root, and the build fails.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)
# The release to build with, whose standard library has no known vulnerability; an older go fetches it as a module.
export GOTOOLCHAIN := go1.27.3+auto
# The tests run the programs that make built.
export TRAMO_BIN := $(BIN)

# Shown by --version, /livez and tramo_build_info; empty where git does not answer.
REVISION := $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)
GO_BUILD := go build -trimpath -ldflags '-X github.com/tramo/tramo/telemetry.revision=$(REVISION)'

WEB_SOURCES := $(shell find web -type d \( -name node_modules -o -name dist \) -prune -o -type f ! -name '*.go' ! -path web/src/openapi.ts -print)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: setup-run build ## Run Tramo on this machine with a private Postgres, S3 server and clamd; Ctrl-C stops it
	@exec $(BIN)/tramo-dev

.PHONY: test
test: setup build ## Run all tests: those of the page, then those in Go with the race detector
	npm --prefix web test
	go test -race -timeout 60m ./...
	cd test/deploy && go test -count=1 ./...
	@$(MAKE) --no-print-directory chart-test

# A module of its own, whose files go does not know: it would call an old result cached. Without -race, which would compile
# Kubernetes a second time for tests of text.
.PHONY: chart-test
chart-test: ## Render the Helm chart by Helm 3 and 4, and validate the result as a cluster would
	cd test/deploy/chart && go test -count=1 ./...

.PHONY: chart
chart: ## Write what is generated from the chart: its README.md, its schema, deploy/kubernetes/tramo.yaml
	cd test/deploy/chart && go test -count=1 ./... -update

FUZZ_TIME ?= 1m

.PHONY: fuzz
fuzz: setup build ## Run each fuzz target for FUZZ_TIME (1m)
	@set -e; go test -list '^Fuzz' ./... | awk '/^Fuzz/ { names[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print $$2, names[i]; n = 0 }' | \
	while read -r package target; do \
		echo "$$package $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_TIME) "$$package"; \
	done

SEEDS ?= 100

.PHONY: soak
soak: setup build ## Inject random faults into whole installations, SEEDS times (100); print how to replay the seeds that failed
	TRAMO_CHAOS_SEEDS=$(SEEDS) go test -race -timeout 0 -parallel 2 -v ./test/chaos -run Chaos
	TRAMO_KILL_SEEDS=$(SEEDS) go test -race -timeout 0 -parallel 2 -v ./test/kill
	TRAMO_TEST_FLIPS=$$((20 * $(SEEDS))) go test -race -timeout 0 -v ./processing/examine -run 'Flips|Truncations'

.PHONY: bench
bench: setup build ## Measure Tramo, its rivals and a bare S3 client; ARGS="-only large -repeat 5" selects and repeats
	@go run ./test/bench $(ARGS)

.PHONY: lint
lint: setup web $(LINT) ## Check the code, the direction of imports, and the description of the API
	$(LINT) run ./...
	npm --prefix web run lint

.PHONY: vuln
vuln: web $(VULN) $(VULN_DB)/index/db.json ## Fail if the code reaches a known vulnerability that test/vuln/excused.txt does not excuse
	go run ./test/vuln $(VULN) -db file://$(VULN_DB) ./...

.PHONY: docs
docs: ## Generate docs/reference/settings.md, cli.md and metrics.md from the code
	go test ./cmd/internal/reference -update

.PHONY: build
build: web ## Build bin/tramo, bin/tramo-worker and bin/tramo-dev
	CGO_ENABLED=0 $(GO_BUILD) -o $(BIN)/tramo ./cmd/tramo
	$(GO_BUILD) -o $(BIN)/tramo-worker ./cmd/tramo-worker
	CGO_ENABLED=0 $(GO_BUILD) -o $(BIN)/tramo-dev ./cmd/tramo-dev

.PHONY: image
image: ## Build the images tramo and tramo-worker with docker, podman or buildah; ARGS="--platform linux/arm64" goes to it
	@deploy/image/build.sh $(ARGS)

.PHONY: image-test
image-test: setup ## Build the images by buildah on bases of its own, run them as they should be run, and send files through; as root, minutes
	test/image/run.sh

.PHONY: web
web: web/dist/index.html ## Build the page

.PHONY: setup
setup: setup-run ## Install what the other targets need
	@test/stack/install.sh test

.PHONY: setup-run
setup-run:
	@test/stack/install.sh run

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(BIN) web/node_modules test/bench/legacy/node_modules
	find web/dist -mindepth 1 ! -name .gitkeep -delete

web/dist/index.html: web/node_modules/.package-lock.json $(WEB_SOURCES) server/openapi.yaml
	npm --prefix web run build
	@touch $@

# npm writes this file last. npm ci installs exactly the versions of the lock file.
web/node_modules/.package-lock.json: web/package-lock.json
	npm --prefix web ci --no-audit --no-fund
	@touch $@

# The database is the data of the module golang.org/x/vulndb: as new as test/tools/go.mod says, and there without a network.
$(VULN) $(VULN_DB)/index/db.json &: test/tools/go.mod test/tools/go.sum
	cd test/tools && go build -o $(BIN)/tools/ golang.org/x/vuln/cmd/govulncheck golang.org/x/vulndb/cmd/indexdb
	cd test/tools && $(BIN)/tools/indexdb -vulns "$$(go list -m -f '{{.Dir}}' golang.org/x/vulndb)/data/osv" -out $(VULN_DB)
	@touch $(VULN) $(VULN_DB)/index/db.json

$(LINT): test/tools/go.mod test/tools/go.sum
	cd test/tools && go build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@
