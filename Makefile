# Braid. `make` lists the targets.
SHELL := /bin/bash
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOFLAGS_BUILD := -trimpath -ldflags "-s -w -X github.com/braid-cni/braid/internal/buildinfo.Version=$(VERSION)"
FUZZTIME ?= 20s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## put braid and braidd in bin/, static and versioned
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o bin/ ./cmd/...

.PHONY: demo
demo: ## give two pods three networks each, in namespaces of their own: no cluster needed
	@hack/setup
	@$(MAKE) --no-print-directory build
	@e2e/demo/run

.PHONY: test
test: ## unit tests, conformance suite and end-to-end tests in namespaces (root)
	@hack/setup
	@hack/check-format
	go vet ./...
	CGO_ENABLED=0 go test ./...

.PHONY: test-cluster
test-cluster: ## end-to-end tests against a real kube-apiserver and etcd (root)
	@hack/setup
	@bin=$$(hack/kubebin) && set -x && BRAID_KUBEBIN=$$bin CGO_ENABLED=0 go test -count=1 -tags cluster -run Cluster ./e2e/... ./kube

.PHONY: test-vm
test-vm: ## tests of the interface plugins on a kernel that has every device type
	@hack/setup
	hack/vm/test

.PHONY: race
race: ## tests under the race detector (needs gcc)
	go test -race ./cni/... ./conf/... ./chain/... ./delegate/... ./journal/... ./resolve/... ./kube/...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (20s)
	FUZZTIME=$(FUZZTIME) hack/fuzz

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, table of imports
	@hack/check-format
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	go test -count=1 ./internal/deptest

.PHONY: size
size: build ## size and start time of the binaries
	@hack/size

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
