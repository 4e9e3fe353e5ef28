// The version of promtool that checks deploy/monitoring. hack/promtool builds it of that source, with the dependencies that
// it pins itself; none of it is in Braid's go.mod.
module github.com/braid-cni/braid/hack/tools/prometheus

go 1.26.0

require github.com/prometheus/prometheus v0.305.0
