package chart_test

import (
	"strings"
	"testing"
)

// all is everything that the chart can make, but one of each two that exclude each other.
const all = base + `
httpRoute: {enabled: true, parentRefs: [{name: public}]}
ingress: {enabled: true, host: uploads.example.com}
externalSecrets: {enabled: true, storeRef: {name: vault}}
serviceMonitor: {enabled: true}
prometheusRule: {enabled: true}
server: {autoscaling: {enabled: true}}
worker: {autoscaling: {mode: keda}}
`

// What a change of the templates can break is found, and the finding says what it is.
func TestMistakesInTemplatesAreFound(t *testing.T) {
	t.Parallel()
	documents, _ := render(t, parse(t, all))
	for _, m := range []struct{ name, kind, old, new, finding string }{
		{"a field that does not exist", "Deployment tramo-server", "serviceAccountName:", "serviceAccount_Name:", `unknown field "spec.template.spec.serviceAccount_Name"`},
		{"a key that is there twice", "Deployment tramo-server", "enableServiceLinks: false", "enableServiceLinks: false\n      enableServiceLinks: true", `"enableServiceLinks" already set`},
		{"a number as a variable's value", "Deployment tramo-server", `value: ":8080"`, "value: 8080", "cannot unmarshal number into Go struct field EnvVar"},
		{"a selector that does not select its own pods", "Deployment tramo-server", "matchLabels:\n      app.kubernetes.io/name: tramo", "matchLabels:\n      app.kubernetes.io/name: other", "`selector` does not match template `labels`"},
		{"a mount without its volume", "Deployment tramo-worker", "name: tmp, mountPath", "name: temp, mountPath", `spec.template.spec.containers[0].volumeMounts[0].name: Not found: "temp"`},
		{"a request above its limit", "Deployment tramo-worker", "limits:\n              memory: 2432Mi", "limits:\n              memory: 1Gi", "must be less than or equal to memory limit"},
		{"a unit that is none", "Deployment tramo-worker", "memory: 2432Mi", "memory: 2432MiB", "quantities must match the regular expression"},
		{"a surge of nothing", "Deployment tramo-server", "maxSurge: 1, maxUnavailable: 0", "maxSurge: 0, maxUnavailable: 0", "may not be 0 when `maxSurge` is 0"},
		{"a sleep beyond the grace period", "Deployment tramo-server", "sleep: {seconds: 15}", "sleep: {seconds: 90}", "must be non-negative and less than terminationGracePeriodSeconds"},
		{"a program of root", "Deployment tramo-server", "runAsNonRoot: true\n        runAsUser: 65532", "runAsUser: 0", "runAsNonRoot != true"},
		{"no profile of seccomp", "Deployment tramo-worker", "seccompProfile: {type: RuntimeDefault}", "", "seccompProfile"},
		{"a capability", "Deployment tramo-worker", "capabilities: {drop: [ALL]}", "capabilities: {drop: [ALL], add: [SYS_ADMIN]}", "unrestricted capabilities"},
		{"more rights by setuid", "Job tramo-migrate", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "allowPrivilegeEscalation != false"},
		{"a job that restarts for ever", "Job tramo-migrate", "restartPolicy: Never", "restartPolicy: Always", "spec.template.spec.restartPolicy"},
		{"a port out of range", "Service tramo-server", "port: 80,", "port: 80000,", "must be between 1 and 65535"},
		{"both kinds of a budget", "PodDisruptionBudget tramo-server", "maxUnavailable: 1", "maxUnavailable: 1\n  minAvailable: 1", "minAvailable and maxUnavailable cannot be both set"},
		{"more servers at least than at most", "HorizontalPodAutoscaler tramo-server", "minReplicas: 2", "minReplicas: 20", "must be greater than or equal to `minReplicas`"},
		{"a path without a slash", "Ingress tramo-server", "path: /\n            pathType", "path: x\n            pathType", "must be an absolute path"},
		{"a peer of two kinds", "NetworkPolicy tramo-server", "- namespaceSelector:", "- ipBlock: {cidr: 10.0.0.0/8}\n          namespaceSelector:", "may not specify both ipBlock and another peer"},
		{"a timeout that Gateway API does not read", "HTTPRoute tramo-server", "request: 0s", "request: 0", `spec.rules[0].timeouts.request`},
		{"a timeout above the whole", "HTTPRoute tramo-server", "request: 0s, backendRequest: 0s", "request: 1s, backendRequest: 2s", "backendRequest timeout cannot be longer than request timeout"},
		{"a field that KEDA does not have", "ScaledObject tramo-worker", "maxReplicaCount:", "maxReplicas:", `unknown field "spec.maxReplicas"`},
		{"a trigger without a kind", "ScaledObject tramo-worker", "type: postgresql", "kind: postgresql", "spec.triggers[0].type: Required value"},
		{"an interval that Prometheus does not read", "ServiceMonitor tramo-server", "interval: 30s", "interval: often", "spec.endpoints[0].interval"},
		{"an alert without an expression", "PrometheusRule tramo-tramo", "expr: max(tramo_clamd_up) == 0", "expression: x", "expr: Required value"},
		{"a secret without a place in the store", "ExternalSecret tramo-server", "remoteRef:", "remote:", "unknown field"},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			finds(t, documents, m.kind, m.old, m.new, m.finding, func(document string, _ []string) error { return validate(document) })
		})
	}
}

// What Kubernetes accepts and does not work is found too.
func TestMistakesBetweenObjectsAreFound(t *testing.T) {
	t.Parallel()
	documents, _ := render(t, parse(t, all))
	for _, m := range []struct{ name, kind, old, new, finding string }{
		{"a setting that does not exist", "Deployment tramo-server", "BUFFER_DISK", "BUFFERS_DISK", "BUFFERS_DISK"},
		{"a setting of another program", "Deployment tramo-worker", "TRAMO_TEMP_SPACE", "TRAMO_BUFFER_DISK", "tramo-worker has no setting TRAMO_BUFFER_DISK"},
		{"a variable that is there twice", "Deployment tramo-server", "name: AWS_REGION", "name: TRAMO_S3_BUCKET", "TRAMO_S3_BUCKET is set twice"},
		{"a port where nobody listens", "Deployment tramo-worker", "containerPort: 9090", "containerPort: 9091", "is not where tramo-worker listens"},
		{"liveness that depends on others", "Deployment tramo-server", "livenessProbe:\n            httpGet: {path: /livez", "livenessProbe:\n            httpGet: {path: /readyz", "the livenessProbe does not ask /livez"},
		{"a probe of a port that is not there", "Deployment tramo-worker", "readinessProbe:\n            httpGet: {path: /readyz, port: ops}", "readinessProbe:\n            httpGet: {path: /readyz, port: http}", "no container has the port http of the readinessProbe"},
		{"no time for what was received", "Deployment tramo-server", "terminationGracePeriodSeconds: 75", "terminationGracePeriodSeconds: 45", "is not more than preStop"},
		{"no time for a worker's jobs", "Deployment tramo-worker", "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 20", "is not TRAMO_STOP_TIMEOUT and 10 s more"},
		{"a stop before the load balancer knows", "Deployment tramo-server", "sleep: {seconds: 15}", "sleep: {seconds: 1}", "before load balancers have forgotten it"},
		{"a volume that is evicted when it is full", "Deployment tramo-worker", "sizeLimit: 4608Mi", "sizeLimit: 4Gi", "has no room for 4GiB"},
		{"a root that can be written", "Deployment tramo-server", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "its root is not read-only"},
		{"a service of no pods", "Service tramo-server", "app.kubernetes.io/component: server\n  ports", "app.kubernetes.io/component: servers\n  ports", "selects the pods of 0 workloads"},
		{"a service of too many pods", "Service tramo-server", "app.kubernetes.io/component: server\n  ports", "app.kubernetes.io/instance: tramo\n  ports", "selects the pods of 3 workloads"},
		{"a target port that is not there", "Service tramo-server", "targetPort: http", "targetPort: web", "no container has its target port web"},
		{"a budget of no pods", "PodDisruptionBudget tramo-worker", "      app.kubernetes.io/component: worker", "      app.kubernetes.io/component: workers", "selects the pods of 0 workloads"},
		{"a route to another port", "HTTPRoute tramo-server", "port: 80}", "port: 8080}", "no service tramo-server with the port 8080"},
		{"an ingress of another service", "Ingress tramo-server", "name: tramo-server\n                port", "name: tramo\n                port", "no service tramo with the port http"},
		{"a scaler of nothing", "ScaledObject tramo-worker", "name: tramo-worker}", "name: tramo-workers}", "no deployment tramo-workers"},
		{"a monitor of no service", "ServiceMonitor tramo-server", "component: server-ops", "component: ops", "no service that it selects"},
		{"no resources", "Job tramo-migrate", "cpu: 50m", "ephemeral-storage: 1Mi", "no resources.requests.cpu"},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			finds(t, documents, m.kind, m.old, m.new, m.finding, func(_ string, all []string) error { return agree(all) })
		})
	}
}

// finds plants a mistake into one of the documents, and checks that it is found.
func finds(t *testing.T, documents []string, kind, old, new, finding string, check func(document string, all []string) error) {
	t.Helper()
	planted := make([]string, len(documents))
	copy(planted, documents)
	var document string
	for i, d := range documents {
		o := parse(t, d)
		if text(o, "kind")+" "+text(o, "metadata.name") == kind {
			planted[i] = strings.Replace(d, old, new, 1)
			if document = planted[i]; document == d {
				t.Fatalf("there is no %q in\n%s", old, d)
			}
		}
	}
	if document == "" {
		t.Fatalf("there is no %s", kind)
	}
	if err := check(document, planted); err == nil || !strings.Contains(err.Error(), finding) {
		t.Errorf("found %v, want %s", err, finding)
	}
}

// Values that cannot work are refused by helm install, with the value's name.
func TestMistakesInValuesAreRefused(t *testing.T) {
	t.Parallel()
	for _, m := range []struct{ name, values, finding string }{
		{"no bucket", `s3: {bucket: ""}`, "bucket"},
		{"no clamd", `clamd: {addresses: []}`, "clamd.addresses"},
		{"a name that is no value", `sever: {replicas: 3}`, "sever"},
		{"a setting that does not exist", `server: {settings: {TRAMO_` + `PARTSIZE: 8MiB}}`, "PARTSIZE"},
		{"a setting of workers for all", `settings: {TRAMO_WORKERS: 3}`, "TRAMO_WORKERS"},
		{"a secret in the clear", `server: {settings: {TRAMO_JWT_SECRET: x}}`, "TRAMO_JWT_SECRET"},
		{"a secret of servers for workers", `secrets: {worker: {keys: {TRAMO_JWT_SECRET: jwt}}}`, "TRAMO_JWT_SECRET"},
		{"a setting that the chart decides", `server: {settings: {TRAMO_LISTEN: ":80"}}`, "TRAMO_LISTEN"},
		{"a setting among other variables", `worker: {extraEnv: [{name: TRAMO_WORKERS, value: "3"}]}`, "extraEnv"},
		{"nothing verifies tokens", `secrets: {server: {keys: {TRAMO_JWT_SECRET: null}}}`, "TRAMO_JWKS_URL"},
		{"a size that Kubernetes writes otherwise", `worker: {temp: {size: 4GB}}`, "size"},
		{"a grace period that is too short", `server: {terminationGracePeriodSeconds: 40}`, "server.terminationGracePeriodSeconds"},
		{"a scan that clamd does not make", `clamd: {scanMaxMiB: 2048}`, "scanMaxMiB"},
		{"a socket in another pod", `clamd: {addresses: ["unix:/run/clamd.sock"]}`, "addresses"},
		{"a route without a gateway", `httpRoute: {enabled: true}`, "parentRefs"},
		{"no store of secrets", `externalSecrets: {enabled: true}`, "storeRef"},
		{"an unknown controller", `ingress: {enabled: true, controller: envoy}`, "controller"},
		{"a way of scaling that is none", `worker: {autoscaling: {mode: hpa}}`, "mode"},
		{"a word for a number", `server: {replicas: two}`, "replicas"},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			v := merge(parse(t, base), parse(t, m.values))
			_, three := render3(v)
			_, four := render4(v)
			for helm, err := range map[string]error{"Helm 3": three, "Helm 4": four} {
				if err == nil || !strings.Contains(err.Error(), m.finding) {
					t.Errorf("%s says %v, want %s", helm, err, m.finding)
				}
			}
		})
	}
}
