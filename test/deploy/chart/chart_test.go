package chart_test

import (
	"testing"

	helm3lint "helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	helm4lint "helm.sh/helm/v4/pkg/chart/v2/lint"
)

// base are the values that everyone must set.
const base = `
s3: {bucket: uploads}
clamd: {addresses: ["tcp://clamd.av.svc:3310"]}
`

// options are values that an operator chooses, each by itself and together with each other.
var options = []struct{ name, values string }{
	{"route", `httpRoute: {enabled: true, parentRefs: [{name: public, namespace: gateways}], hostnames: [uploads.example.com], annotations: {a: b}}`},
	{"alb", `ingress: {enabled: true, host: uploads.example.com, annotations: {alb.ingress.kubernetes.io/scheme: internal}}`},
	{"nginx", `ingress: {enabled: true, controller: nginx, host: uploads.example.com, tlsSecret: tls}`},
	{"another ingress", `ingress: {enabled: true, controller: other, tlsSecret: tls}`},
	{"servers by cpu", `server: {autoscaling: {enabled: true}}`},
	{"servers by connections", `server: {autoscaling: {enabled: true, connections: 2000}}`},
	{"workers by keda", `worker: {autoscaling: {mode: keda}}`},
	{"workers by a metric", `worker: {autoscaling: {mode: external, external: {matchLabels: {state: available}}}}`},
	{"clamd", `clamd: {enabled: true, addresses: [], scanMaxMiB: 256}`},
	{"clamd with a claim", `clamd: {enabled: true, existingClaim: signatures, nodeSelector: {disk: fast}}`},
	{"external secrets", `externalSecrets: {enabled: true, storeRef: {name: vault}}`},
	{"monitoring", `
serviceMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
dashboards: {enabled: true}
`},
	{"all secrets", `
secrets:
  server:
    name: mine
    keys:
      TRAMO_LINK_KEY: link
      TRAMO_WEBHOOK_KEY: webhook
      TRAMO_OPS_TOKEN: ops
      TRAMO_REDIS_URL: redis
      TRAMO_RECEIPT_KEY_FILE: receipt.pem
      TRAMO_RECEIPT_RETIRED_KEYS_FILE: retired.pem
  worker: {keys: {TRAMO_WEBHOOK_KEY: webhook, TRAMO_OPS_TOKEN: ops}}
networkPolicy: {extraEgress: [{ports: [{port: 6379}], to: [{podSelector: {matchLabels: {app: redis}}}]}]}
`},
	{"identity provider", `
secrets: {server: {keys: {TRAMO_JWT_SECRET: null, TRAMO_LINK_KEY: link}}}
server: {settings: {TRAMO_JWKS_URL: "https://id.example.com/.well-known/jwks.json", TRAMO_JWT_AUDIENCE: tramo}}
`},
	{"another store", `s3: {endpoint: "https://s3.example.com:9000", region: eu, credentialsSecret: s3}`},
	{"no guards", `
networkPolicy: {enabled: false}
migrate: {enabled: false}
server: {podDisruptionBudget: {enabled: false}, serviceAccount: {create: false}}
worker: {podDisruptionBudget: {enabled: false}, serviceAccount: {create: false, name: given}}
`},
	{"strict network", `networkPolicy: {clients: [{ipBlock: {cidr: 10.0.0.0/8}}], monitoring: [], egressPorts: []}`},
	{"settings", `
settings: {TRAMO_LOG_LEVEL: debug, TRAMO_PPROF: true}
server: {settings: {TRAMO_MAX_CONNECTIONS: 10000000, TRAMO_PUBLIC_URL: "https://uploads.example.com", TRAMO_TRUSTED_PROXIES: 10.0.0.0/8, TRAMO_LOG_LEVEL: warn}}
worker: {settings: {TRAMO_CHILD_MEMORY: 512MiB, TRAMO_WORKERS: 2}}
`},
	{"pods", `
imagePullSecrets: [{name: registry}]
commonLabels: {team: field}
server: &pod
  image: {digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
  podAnnotations: {a: b}
  podLabels: {c: d}
  nodeSelector: {kubernetes.io/arch: arm64}
  tolerations: [{key: uploads, operator: Exists}]
  affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: busy}}}}]}}
  priorityClassName: high
  topologySpread: {zone: DoNotSchedule, host: ScheduleAnyway}
  extraEnv: [{name: OTEL_EXPORTER_OTLP_ENDPOINT, value: "http://collector:4318"}]
  extraVolumes: [{name: ca, configMap: {name: ca}}]
  extraVolumeMounts: [{name: ca, mountPath: /etc/ssl/ours}]
worker: *pod
`},
	{"a long name", `fullnameOverride: a-name-that-is-far-longer-than-any-label-of-kubernetes-may-be-at-all`},
}

// Whatever an operator chooses, alone or with another choice, both Helms render the same, and a cluster accepts it.
func TestEveryRenderIsValid(t *testing.T) {
	t.Parallel()
	common := parse(t, base)
	check := func(t *testing.T, v values) {
		t.Parallel()
		documents, notes := render(t, v)
		for _, d := range documents {
			if err := validate(d); err != nil {
				t.Errorf("%v\n%s", err, d)
			}
		}
		if err := agree(documents); err != nil {
			t.Error(err)
		}
		if notes == "" {
			t.Error("there are no notes")
		}
	}
	t.Run("nothing but what is needed", func(t *testing.T) { check(t, common) })
	all := common
	for i, a := range options {
		one := merge(common, parse(t, a.values))
		all = merge(all, parse(t, a.values))
		t.Run(a.name, func(t *testing.T) { check(t, one) })
		for _, b := range options[i+1:] {
			two := merge(one, parse(t, b.values))
			t.Run(a.name+" and "+b.name, func(t *testing.T) { check(t, two) })
		}
	}
	t.Run("everything", func(t *testing.T) { check(t, all) })
}

// helm lint of both Helms is content.
func TestLint(t *testing.T) {
	t.Parallel()
	for _, m := range helm3lint.All(chartDir, parse(t, base), namespace, true).Messages {
		if m.Severity > support.InfoSev {
			t.Error("Helm 3: ", m)
		}
	}
	for _, m := range helm4lint.RunAll(chartDir, parse(t, base), namespace).Messages {
		if m.Severity > support.InfoSev {
			t.Error("Helm 4: ", m)
		}
	}
}
