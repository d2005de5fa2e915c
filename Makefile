# What a person types. Everything builds with Go alone; `make test` installs
# what its tests need besides, where it may.

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
GO       ?= go
GOFLAGS  += -trimpath
LDFLAGS  := -s -w -X main.version=$(VERSION)
PACKAGES := ./...

export CGO_ENABLED ?= 0
export GOTOOLCHAIN ?= local

.DEFAULT_GOAL := build
.PHONY: node-image build worker demo demo-remote demo-cloud test lint fmt golden fuzz crash leaks faults bench bench-remote bench-cloud release clean help test-openstack test-storage

## build: bin/skyport, with the workers for all architectures inside
build: worker
	@mkdir -p bin
	$(GO) build $(GOFLAGS) -ldflags '$(LDFLAGS)' -o bin/skyport ./cmd/skyport

## worker: the nodes' binary, compressed, where skyport embeds it
worker:
	@$(GO) run ./internal/workerbin/gen -version '$(VERSION)'

## node-image: the image of nodes that are containers (NODE_IMAGE, MIRROR); root, Docker
node-image:
	@sh images/node/build.sh

## demo: a real job's whole life on this machine; no cloud, no root
demo: build
	@$(GO) build $(GOFLAGS) -o bin/opticks ./examples/opticks
	@bash examples/opticks/demo.sh

## demo-remote: the same over three real nodes with containers; needs a Docker engine and root
demo-remote: build
	@$(GO) build $(GOFLAGS) -o bin/example-registry ./examples/remote/registry
	@bash examples/remote/demo.sh

## demo-cloud: a job on two spot machines of Azure, which is emulated; needs a Docker engine and root
demo-cloud: build
	@$(GO) build $(GOFLAGS) -o bin/example-azure ./test/azure/cmd/azure-emulator
	@bash examples/cloud/demo.sh

## test: everything that must hold, as CI runs it
test: build
	@bash test/run.sh

## lint: the strict linters of .golangci.yml
lint:
	@bash test/lint.sh

## fmt: format as the linters want it
fmt:
	@bash test/lint.sh fmt

## golden: write golden files anew, to be read in the diff
golden:
	CGO_ENABLED=0 $(GO) test ./cmd/skyport ./jobscript ./internal/spool ./internal/core/api -update

## fuzz: every fuzz target for FUZZTIME (default 30s)
fuzz:
	@bash test/fuzz.sh $(or $(FUZZTIME),30s)

## crash: kill -9 everything at every stage; KILLS (default 500), SEED; SITE=docker, SITE=azure: on nodes reached by SSH (default 100)
crash: build
	$(GO) test ./test/crash -count=1 -timeout 60m -v -run '^TestCrash$(if $(filter docker,$(SITE)),Remote)$(if $(filter azure,$(SITE)),Azure)$$' \
	  -kills $(or $(KILLS),$(if $(filter docker azure,$(SITE)),100,500)) $(if $(SEED),-seed $(SEED))

## leaks: jobs come and go in an emulated cloud that errs while core and gate are killed: nothing is left; RUNS (default 1000), SEED
leaks: build
	$(GO) test ./test/leaks -count=1 -timeout 60m -parallel 4 -v -args -binary $(CURDIR)/bin/skyport \
	  -runs $(or $(RUNS),1000) $(if $(SEED),-seed $(SEED))

## faults: what happens to links and nodes in life, at full length; needs root and a Docker engine
faults: build
	$(GO) test ./test/e2e -count=1 -timeout 120m -parallel 8 -v -run 'TestFaults|TestRemote' -args -long

## bench: the numbers that README quotes, as a table and JSON in bench/out
bench: build
	$(GO) run ./bench

## bench-remote: nodes over SSH, on loopback and at 50 ms, against scp, rsync and ssh -L
bench-remote: build
	$(GO) run ./bench -remote

## bench-cloud: what is added to a cloud's own time, against the emulator of Azure; a part needs a Docker engine
bench-cloud: build
	$(GO) run ./bench -cloud

## release: static binaries with checksums in dist/
release: worker
	@mkdir -p dist
	@for arch in amd64 arm64; do \
	  GOOS=linux GOARCH=$$arch $(GO) build $(GOFLAGS) -ldflags '$(LDFLAGS)' -o dist/skyport-linux-$$arch ./cmd/skyport || exit 1; \
	done
	@cd dist && sha256sum skyport-linux-* > SHA256SUMS && cat SHA256SUMS

## clean: remove what was built
clean:
	rm -rf bin dist bench/out coverage.out internal/workerbin/dist/*.zst internal/workerbin/dist/*.sum

## help: this list
help:
	@sed -n 's/^## \([a-z-]*\): /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

## test-openstack: whole lives of jobs in a real OpenStack, brought up here; root on Debian 12 (KEEP=1 leaves it, PURGE=1 removes its data)
test-openstack:
	@bash test/openstack/run.sh

## test-storage: grants of storages against Azurite, which npm brings into the cache
AZURITE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/skyport/azurite-3.35.0
test-storage:
	@[ -x "$(AZURITE)/node_modules/.bin/azurite-blob" ] || npm install --silent --no-save --prefix "$(AZURITE)" azurite@3.35.0
	@PATH="$(AZURITE)/node_modules/.bin:$$PATH" go test -count=1 -v -run StorageGrant ./gate/azure
