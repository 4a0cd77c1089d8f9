# Gangline's everyday commands. `make help` lists them.
#
# A fresh machine needs Go (the version in go.mod) and nothing else; with a C compiler the agent can also talk to
# NVIDIA's driver. Developer tools are pinned in tools.mod and tools-lint.mod (apart, because the linter wants newer
# modules than buf was tested with) and built by `go tool`, so nothing is installed by hand. tools-s3.mod has an S3 server
# for tests.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-builtin-rules

GO   ?= go
TOOL := $(GO) tool -modfile=tools.mod
LINT := $(GO) tool -modfile=tools-lint.mod golangci-lint

PKGS      ?= ./...
RACE      ?= ./scheduler/... ./nodeagent/... ./allreduce/... ./checkpoint/... ./libgangline/session/... ./sim/... ./internal/...
PURE      := ./scheduler/cluster ./scheduler/planner ./scheduler/planner/fleet ./scheduler/control ./scheduler/forecast ./nodeagent/reconcile
COVER_MIN ?= 85
SEED      ?= 1
BENCH     ?= .
BENCHTIME ?= 300ms
REPORT    ?=
TRACES    ?= $(GANGLINE_TRACES)

# The version printed by `gangline version`: the nearest tag and commit, or "dev" outside a git checkout.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# NVML is loaded through cgo; without a C compiler the build still works and the agent says that it has no NVML.
CC_FOUND := $(shell command -v "$$($(GO) env CC)" 2>/dev/null)
export CGO_ENABLED ?= $(if $(CC_FOUND),1,0)

BUILD := -buildvcs=false -trimpath -ldflags '-X main.version=$(VERSION)'

## build: compile bin/gangline (with NVML support when a C compiler is present) and the example bin/digits
.PHONY: build
build:
	@mkdir -p bin
	$(GO) build $(BUILD) -o bin/gangline ./cmd/gangline
	$(GO) build $(BUILD) -o bin/digits ./examples/digits

## lib: compile bin/libgangline.so, by which Python and C programs use Gangline (needs a C compiler); its header is libgangline/gangline.h
.PHONY: lib
lib:
	@mkdir -p bin/cgo
	@tmp=$$(mktemp -d bin/cgo.XXXXXX); trap 'rm -rf "$$tmp"' EXIT; \
	CGO_ENABLED=1 $(GO) build -buildvcs=false -trimpath -buildmode=c-shared \
		-ldflags '-s -w -extldflags=-Wl,--version-script=$(CURDIR)/libgangline/exports.map' -o "$$tmp/libgangline.so" ./libgangline && \
	mv -f "$$tmp/libgangline.h" bin/cgo/ && mv -f "$$tmp/libgangline.so" bin/

# The assembly of the sums is written by a program in a module of its own.
ASM := cd allreduce/kernel/asm && $(GO) run .

## generate: regenerate the Go code of proto/ and the assembly of allreduce/kernel (commit the result)
.PHONY: generate
generate:
	$(TOOL) buf generate
	$(ASM) -out ../kernel_amd64.s -stubs ../stubs_amd64.go -pkg kernel

## generate-check: fail when the committed generated code is not what its sources say
.PHONY: generate-check
generate-check:
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(TOOL) buf generate --output "$$tmp"; \
	diff <(cd proto && find . -name '*.pb.go' | sort) <(cd "$$tmp/proto" && find . -name '*.pb.go' | sort) || \
		{ echo 'generated files are missing or left over: run "make generate" and commit the result' >&2; exit 1; }; \
	(cd "$$tmp/proto" && find . -name '*.pb.go' -print0) | \
		while IFS= read -r -d '' f; do diff -u "proto/$$f" "$$tmp/proto/$$f" || exit 1; done && \
	($(ASM) -out "$$tmp/kernel_amd64.s" -stubs "$$tmp/stubs_amd64.go" -pkg kernel) && \
	for f in kernel_amd64.s stubs_amd64.go; do \
		diff <(tail -n +2 "allreduce/kernel/$$f") <(tail -n +2 "$$tmp/$$f") || exit 1; done || \
		{ echo 'generated code is out of date: run "make generate" and commit the result' >&2; exit 1; }; \
	echo 'generated code is up to date'

## test: run every test, one line for each package and a summary at the end
.PHONY: test
test:
	@$(GO) test -buildvcs=false -timeout 10m -v $(PKGS) 2>&1 | .ci/testreport

## race: run the tests of the concurrent packages under the race detector (needs a C compiler)
.PHONY: race
race:
	@CGO_ENABLED=1 $(GO) test -buildvcs=false -race -timeout 10m -v $(RACE) 2>&1 | .ci/testreport

## kills: kill everything by SIGKILL while the digits job trains, at random moments (KILLS=50, KILL_SEED=1): it must end with the same model
KILLS ?= 50
KILL_SEED ?= 1
.PHONY: kills
kills:
	KILLS=$(KILLS) KILL_SEED=$(KILL_SEED) $(GO) test -buildvcs=false -count=1 -timeout 30m -run '^TestKillEverything$$' -v ./cmd/gangline

## losses: kill and stop each rank of a ring at each point of its work, in processes of their own, on every path (takes an hour and more)
.PHONY: losses
losses:
	GANGLINE_EVERY_LOSS=1 $(GO) test -buildvcs=false -count=1 -timeout 180m -parallel 20 -run '^TestProcessesLostAnywhere$$' -v ./allreduce/grpclink

## lint: check format, imports, purity, common bugs and protobuf style
.PHONY: lint
lint:
	$(GO) run ./cmd/purecheck
	$(TOOL) buf lint
	$(LINT) run ./... ./.ci/checkdemo

## fmt: put imports and layout in order
.PHONY: fmt
fmt:
	$(LINT) fmt ./...

## s3: build an S3 server (versitygw, some minutes) and run the tests of object stores against it
.PHONY: s3
s3: bin/versitygw
	$(GO) test -count=1 -run 'RealServer|TestAgainstAServer|VerbsOnABucket' -v ./checkpoint/remote ./nodeagent ./cmd/gangline

bin/versitygw: tools-s3.mod
	@mkdir -p bin
	$(GO) build -modfile=tools-s3.mod -o $@ github.com/versity/versitygw/cmd/versitygw

## bench: run the Go benchmarks for about three minutes (BENCH=regexp chooses, BENCHTIME=1s measures longer)
.PHONY: bench
bench:
	$(GO) test -buildvcs=false -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -timeout 15m $(PKGS) | \
		{ grep --line-buffered -vE '\[no test files\]$$|^PASS$$|^ok  |^goos:|^goarch:' || echo 'no benchmark matches'; }

## demo: build, then train over 4 emulated nodes while the leader and a node are killed (REPORT=file keeps the result)
.PHONY: demo
demo: build
	./bin/gangline demo $(if $(REPORT),--report '$(REPORT)')

## calibrate: one workload on a real cluster of processes and in the simulator; fails if average completion times differ by over 5 %
.PHONY: calibrate
calibrate: build
	@./bin/gangline sim calibrate

## sim: run the simulator on a synthetic cluster; the same SEED gives the same output, byte for byte
.PHONY: sim
sim: build
	@./bin/gangline sim run --seed $(SEED)

## results: replay the published traces in TRACES (default: GANGLINE_TRACES) and write docs/results.md; about a quarter of an hour on two cores
.PHONY: results
results: build
	$(GO) run -buildvcs=false ./bench/results -traces '$(TRACES)'

## cover: run the tests with coverage; leaves coverage/all.html
.PHONY: cover
cover:
	@mkdir -p coverage
	$(GO) test -buildvcs=false -timeout 10m -coverprofile coverage/all.txt $(PKGS)
	$(GO) tool cover -html coverage/all.txt -o coverage/all.html
	$(GO) tool cover -func coverage/all.txt | tail -n 1

## cover-pure: fail when the tests of a pure package run less than COVER_MIN percent of it
.PHONY: cover-pure
cover-pure:
	@$(GO) test -buildvcs=false -timeout 8m -cover $(PURE) | awk -v min=$(COVER_MIN) '{ print } \
		match($$0, /coverage: [0-9.]+%/) { n++; if (substr($$0, RSTART + 10, RLENGTH - 11) + 0 < min) low = low " " $$0 } \
		END { if (low != "") { print "below " min " percent:" low; exit 1 } \
			if (n < $(words $(PURE))) { print "a package has no coverage figure"; exit 1 } }'

## check: everything that must hold before a push, fast things first
.PHONY: check
check: generate-check mod-check lint test cover-pure race

## mod-check: fail when go.mod lacks or carries something, or a module's content changed
.PHONY: mod-check
mod-check:
	$(GO) mod tidy -diff
	$(GO) mod verify

## clean: remove what these commands built
.PHONY: clean
clean:
	rm -rf bin coverage

## help: list these targets
.PHONY: help
help:
	@sed -n 's/^## \([a-z-]*\): /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do \
		printf '  make %-16s %s\n' "$$name" "$$text"; done
