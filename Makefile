# Gangline's everyday commands. `make help` lists them.
#
# A fresh machine needs Go (the version in go.mod) and nothing else; with a C compiler the agent can also talk to
# NVIDIA's driver. Developer tools are pinned in tools.mod and built by `go tool`, so nothing is installed by hand.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-builtin-rules

GO   ?= go
TOOL := $(GO) tool -modfile=tools.mod
SEED ?= 1

# The version printed by `gangline version`: the nearest tag and commit, or "dev" outside a git checkout.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# NVML is loaded through cgo; without a C compiler the build still works and the agent says that it has no NVML.
CC_FOUND := $(shell command -v "$$($(GO) env CC)" 2>/dev/null)
export CGO_ENABLED ?= $(if $(CC_FOUND),1,0)

BUILD := -buildvcs=false -trimpath -ldflags '-X main.version=$(VERSION)'

## build: compile bin/gangline (with NVML support when a C compiler is present)
.PHONY: build
build:
	@mkdir -p bin
	$(GO) build $(BUILD) -o bin/gangline ./cmd/gangline

## generate: regenerate the Go code of proto/ (commit the result)
.PHONY: generate
generate:
	$(TOOL) buf generate

## generate-check: fail when the committed generated code is not what the .proto files say
.PHONY: generate-check
generate-check:
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(TOOL) buf generate --output "$$tmp"; \
	diff <(cd proto && find . -name '*.pb.go' | sort) <(cd "$$tmp/proto" && find . -name '*.pb.go' | sort) || \
		{ echo 'generated files are missing or left over: run "make generate" and commit the result' >&2; exit 1; }; \
	(cd "$$tmp/proto" && find . -name '*.pb.go' -print0) | \
		while IFS= read -r -d '' f; do diff -u "proto/$$f" "$$tmp/proto/$$f" || exit 1; done || \
		{ echo 'generated code is out of date: run "make generate" and commit the result' >&2; exit 1; }; \
	echo 'generated code is up to date'
