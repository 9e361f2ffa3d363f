// The releases whose custom resources the chart's tests check against. They are only files here: nothing is compiled, and
// go mod tidy must not run.
module github.com/tramo/tramo/test/deploy/chart/crds

go 1.27.0

require (
	github.com/external-secrets/external-secrets v1.3.2
	github.com/kedacore/keda/v2 v2.21.0
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.7.0
)
