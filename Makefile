# Braid. `make` lists the targets.
SHELL := /bin/bash
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME ?= 20s
NODE_TESTS ?= .*

# The same for every build and test, so that each package is compiled once.
export CGO_ENABLED ?= 0
export GOFLAGS := -trimpath -buildvcs=false

# hack/setup installs what the tests need, so a missing program is a failure and no reason to skip.
export BRAID_TEST_FULL := 1

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## put braid, braidd and braid-shim in bin/, static and versioned
	go build -ldflags "-s -w -X github.com/braid-cni/braid/internal/buildinfo.Version=$(VERSION)" -o bin/ ./cmd/...

.PHONY: demo
demo: ## give two pods three networks each, in namespaces of their own: no cluster needed (root)
	@hack/setup
	@$(MAKE) --no-print-directory build
	@e2e/demo/run

.PHONY: test
test: ## unit tests, conformance suite and end-to-end tests in namespaces (root)
	@hack/setup test
	@hack/check-format
	go vet ./...
	go test -count=1 ./...

.PHONY: test-cluster
test-cluster: ## end-to-end tests against a real kube-apiserver and etcd, built if absent (root)
	@hack/setup test
	@bin=$$(hack/kubebin) && set -x && BRAID_KUBEBIN=$$bin go test -count=1 -tags cluster -run Cluster ./e2e ./e2e/cluster ./kube/... ./deploy

.PHONY: conformance
conformance: ## every clause of the standards, asked of the binaries; writes docs/conformance.md (IMPL=multus, braid+daemon, a path; root)
	@hack/setup test
	@bin=$$(hack/kubebin) && set -x && BRAID_KUBEBIN=$$bin CONFORMANCE_REPORT=1 IMPL=$(IMPL) \
	  go test -count=1 -tags conformance -parallel 4 -timeout 20m -run TestClauses ./e2e/conformance

.PHONY: test-scale
test-scale: ## what the daemons of 1,000 nodes ask of an API server, measured (root)
	@hack/setup test
	@bin=$$(hack/kubebin) && set -x && BRAID_KUBEBIN=$$bin go test -count=1 -tags cluster -v -timeout 30m -run TestScale ./e2e

.PHONY: bench
bench: ## measure Braid against its peers and write docs/benchmarks.md: half an hour on a quiet machine (root)
	@hack/setup test
	go run ./bench

.PHONY: bench-quick
bench-quick: ## the most important of it, in three minutes; the report is in bin/ (root)
	@hack/setup test
	go run ./bench -quick

.PHONY: bench-vm
bench-vm: ## ipvlan against the reference, on a kernel that has it
	PACKAGES=./ipvlan hack/vm/test -run '^$$' -bench .

.PHONY: test-node
test-node: ## pods on a real node: kubelet, containerd (BRAID_CONTAINERD=1 or 2) and runc in namespaces; NODE_TESTS names parts (root)
	@hack/setup test
	@kube=$$(hack/kubebin node) && node=$$(hack/nodebin) && set -x && \
	  BRAID_KUBEBIN=$$kube BRAID_NODEBIN=$$node go test -count=1 -timeout 30m -tags node -run 'TestNode/^($(NODE_TESTS))$$' ./e2e/node

.PHONY: test-clients
test-clients: build ## other runtimes' CNI clients: CRI-O's and containerd's drivers, cnitool, podman, nerdctl (root)
	@hack/setup test
	@programs=$$(e2e/clients/setup) && set -x && BRAID_BIN=$(CURDIR)/bin BRAID_CLIENTS=$$programs go test -C e2e/clients -count=1 .

.PHONY: test-crash
test-crash: ## the binaries killed at every system call that changes something, and what follows; BRAID_CRASH=full: all that can follow (root)
	@hack/setup test
	go test -count=1 -timeout 90m -parallel 4 -tags crash ./e2e/crash

# Figures of earlier runs go first, so that the page has none of a tier that has failed.
.PHONY: reliability
reliability: ## all attacks on the promises, at length, and what they did into docs/reliability.md; takes long (root; needs gcc)
	rm -rf bin/figures
	export BRAID_CRASH=full BRAID_STORM=full BRAID_FIGURES=$(CURDIR)/bin/figures && \
	  for tier in test-crash test-storm fuzz conformance race; do $(MAKE) --no-print-directory $$tier || exit 1; done
	go run ./e2e/figures/report -figures bin/figures -page docs/reliability.md

.PHONY: test-storm
test-storm: ## the binaries by the hundred at once, against each other and against kill -9 (BRAID_STORM=full: longer; root)
	@hack/setup test
	go test -count=1 -timeout 60m -tags storm ./e2e/storm

.PHONY: test-deploy
test-deploy: ## manifests, chart, kustomization, image, dashboard and alert rules, with the tools that read them
	@promtool=$$(hack/promtool) && set -x && BRAID_PROMTOOL=$$promtool go test -count=1 -tags deploy ./deploy ./node/metrics
	go test -C hack/tools/image -count=1 .

.PHONY: manifests
manifests: ## render deploy/*.yaml from deploy/chart
	@hack/manifests

.PHONY: image
image: ## the image as an OCI archive, bin/braid-image.tar, for `ctr -n k8s.io images import`
	@hack/image $(VERSION)

.PHONY: test-vm
test-vm: ## tests of the plugins on a kernel that has every device type, built if absent (root)
	@hack/setup test
	hack/vm/test

.PHONY: race
race: ## tests under the race detector (root; needs gcc)
	@hack/setup test
	@hack/race

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (20s)
	@FUZZTIME=$(FUZZTIME) hack/fuzz

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, table of imports, what braid links
	@hack/check-format
	go vet -tags cluster,node,deploy,conformance,crash,storm ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 -tags cluster,node,deploy,conformance,crash,storm ./...
	go test -count=1 ./internal/deptest
	@hack/check-links

.PHONY: size
size: build ## size and start time of the binaries
	@hack/size

.PHONY: refplugins
refplugins: ## build the reference plugins that tests compare with; the tests do it themselves if need be
	go test -count=1 ./internal/refplugins

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
