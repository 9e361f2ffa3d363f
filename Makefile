# make help lists the targets. Each that needs packages installs them first, and does nothing when they are there.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN  := $(CURDIR)/bin
LINT := $(BIN)/tools/golangci-lint

# No VCS stamp: as root in another user's clone git refuses to answer, and the build with it.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)
# The tests use the programs that make has built.
export TRAMO_BIN := $(BIN)

# What the programs say of themselves in --version and in tramo_build_info; empty where git refuses to answer.
REVISION := $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)
GO_BUILD := go build -trimpath -ldflags '-X github.com/tramo/tramo/telemetry.revision=$(REVISION)'

WEB_SOURCES := $(shell find web -type d \( -name node_modules -o -name dist \) -prune -o -type f ! -name '*.go' ! -path web/src/openapi.ts -print)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: setup-run build ## Start Tramo on this machine, with Postgres, S3 and clamd of its own; Ctrl-C stops it
	@exec $(BIN)/tramo-dev

.PHONY: test
test: setup build ## Run every test: the page's, then Go's under the race detector
	npm --prefix web test
	go test -race -timeout 20m ./...

SEEDS ?= 100

.PHONY: soak
soak: setup build ## Break a whole installation SEEDS times (100), and say which seeds failed and how to replay them
	TRAMO_CHAOS_SEEDS=$(SEEDS) go test -race -timeout 0 -parallel 2 -v ./test/chaos -run Chaos
	TRAMO_KILL_SEEDS=$(SEEDS) go test -race -timeout 0 -parallel 2 -v ./test/kill
	TRAMO_TEST_FLIPS=$$((20 * $(SEEDS))) go test -race -timeout 0 -v ./processing/examine -run 'Flips|Truncations'

.PHONY: bench
bench: setup build ## Measure against stock tusd and a bare S3 client; ARGS="-only large -repeat 5" measures less, or more often
	@go run ./test/bench $(ARGS)

.PHONY: lint
lint: setup web $(LINT) ## Check the code, that imports run one way, and the description of the API
	$(LINT) run ./...
	npm --prefix web run lint

.PHONY: docs
docs: ## Write the pages of docs/reference that come from the code
	go test ./cmd/internal/reference -update

.PHONY: build
build: web ## Build bin/tramo, bin/tramo-worker and bin/tramo-dev
	CGO_ENABLED=0 $(GO_BUILD) -o $(BIN)/tramo ./cmd/tramo
	$(GO_BUILD) -o $(BIN)/tramo-worker ./cmd/tramo-worker
	CGO_ENABLED=0 $(GO_BUILD) -o $(BIN)/tramo-dev ./cmd/tramo-dev

.PHONY: web
web: web/dist/index.html ## Build the page

.PHONY: setup
setup: setup-run ## Install what building, running and testing takes
	@test/stack/install.sh test

.PHONY: setup-run
setup-run:
	@test/stack/install.sh run

.PHONY: clean
clean: ## Remove what was built, and nothing else
	rm -rf $(BIN) web/node_modules
	find web/dist -mindepth 1 ! -name .gitkeep -delete

web/dist/index.html: web/node_modules/.package-lock.json $(WEB_SOURCES) server/openapi.yaml
	npm --prefix web run build
	@touch $@

# npm writes this file last. npm ci, because it installs what the lock file says and nothing else.
web/node_modules/.package-lock.json: web/package-lock.json
	npm --prefix web ci --no-audit --no-fund
	@touch $@

$(LINT): test/tools/go.mod test/tools/go.sum
	cd test/tools && go build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@
