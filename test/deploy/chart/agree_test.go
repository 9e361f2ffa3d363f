package chart_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// agree says where the objects of a render do not fit together, which no validation of a single object can see.
func agree(documents []string) error {
	r := &relations{pods: make(map[string]values), named: make(map[string]values)}
	for _, d := range documents {
		var o values
		if err := yaml.Unmarshal([]byte(d), &o); err != nil {
			return err
		}
		key := text(o, "kind") + " " + text(o, "metadata.name")
		if r.named[key] != nil {
			r.wrong("%s: it is there twice", key)
		}
		r.named[key] = o
		if kind := text(o, "kind"); kind == "Deployment" || kind == "Job" {
			r.pods[key] = o
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.named)) {
		o := r.named[key]
		if text(o, "metadata.namespace") != namespace {
			r.wrong("%s: its namespace is not the release's", key)
		}
		switch text(o, "kind") {
		case "Deployment", "Job":
			r.pod(key, o)
		case "Service":
			r.service(key, o)
		case "PodDisruptionBudget":
			r.selected(key, at(o, "spec.selector.matchLabels"))
		case "NetworkPolicy":
			r.policy(key, o)
		case "HorizontalPodAutoscaler", "ScaledObject":
			r.scaler(key, o)
		case "HTTPRoute":
			for _, rule := range list(o, "spec.rules") {
				for _, b := range list(rule, "backendRefs") {
					r.backend(key, text(b, "name"), text(b, "port"))
				}
			}
		case "Ingress":
			for _, rule := range list(o, "spec.rules") {
				for _, p := range list(rule, "http.paths") {
					r.backend(key, text(p, "backend.service.name"), text(p, "backend.service.port.name"))
				}
			}
		case "ServiceMonitor":
			r.monitor(key, o)
		}
	}
	return errors.Join(r.errs...)
}

type relations struct {
	pods, named map[string]values // by kind and name
	errs        []error
}

func (r *relations) wrong(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(format, args...))
}

// selected returns the workloads whose pods have these labels; there must be one.
func (r *relations) selected(key string, labels any) (found []values) {
	want, _ := labels.(values)
	for _, o := range r.pods {
		have, _ := at(o, "spec.template.metadata.labels").(values)
		if len(want) > 0 && contains(have, want) {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		r.wrong("%s: its selector selects the pods of %d workloads, not of 1", key, len(found))
	}
	return found
}

func contains(have, want values) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// ports are the names and numbers of the ports of a workload's containers.
func ports(o values) (all []string) {
	for _, c := range list(o, "spec.template.spec.containers") {
		for _, p := range list(c, "ports") {
			all = append(all, text(p, "name"), text(p, "containerPort"))
		}
	}
	return all
}

func (r *relations) service(key string, o values) {
	for _, w := range r.selected(key, at(o, "spec.selector")) {
		for _, p := range list(o, "spec.ports") {
			if !slices.Contains(ports(w), text(p, "targetPort")) {
				r.wrong("%s: no container has its target port %s", key, text(p, "targetPort"))
			}
		}
	}
}

func (r *relations) backend(key, service, port string) {
	for _, p := range list(r.named["Service "+service], "spec.ports") {
		if port == text(p, "name") || port == text(p, "port") {
			return
		}
	}
	r.wrong("%s: there is no service %s with the port %s", key, service, port)
}

func (r *relations) policy(key string, o values) {
	for _, w := range r.selected(key, at(o, "spec.podSelector.matchLabels")) {
		for _, rule := range list(o, "spec.ingress") {
			for _, p := range list(rule, "ports") {
				if !slices.Contains(ports(w), text(p, "port")) {
					r.wrong("%s: no container has its port %s", key, text(p, "port"))
				}
			}
		}
	}
}

func (r *relations) scaler(key string, o values) {
	target := r.named["Deployment "+text(o, "spec.scaleTargetRef.name")]
	switch {
	case target == nil:
		r.wrong("%s: there is no deployment %s", key, text(o, "spec.scaleTargetRef.name"))
	case at(target, "spec.replicas") != nil:
		r.wrong("%s: each upgrade sets the replicas of what it scales", key)
	}
	for _, trigger := range list(o, "spec.triggers") {
		if ref := text(trigger, "authenticationRef.name"); r.named["TriggerAuthentication "+ref] == nil {
			r.wrong("%s: there is no trigger authentication %s", key, ref)
		}
	}
}

func (r *relations) monitor(key string, o values) {
	want, _ := at(o, "spec.selector.matchLabels").(values)
	for name, s := range r.named {
		labels, _ := at(s, "metadata.labels").(values)
		if !strings.HasPrefix(name, "Service ") || !contains(labels, want) {
			continue
		}
		for _, e := range list(o, "spec.endpoints") {
			if !slices.ContainsFunc(list(s, "spec.ports"), func(p values) bool { return text(p, "name") == text(e, "port") }) {
				r.wrong("%s: %s has no port %s", key, name, text(e, "port"))
			}
		}
		return
	}
	r.wrong("%s: there is no service that it selects", key)
}

// pod checks what a program needs of its pod.
func (r *relations) pod(key string, o values) {
	spec, _ := at(o, "spec.template.spec").(values)
	if account := text(spec, "serviceAccountName"); strings.HasPrefix(account, "tramo-") && r.named["ServiceAccount "+account] == nil {
		r.wrong("%s: there is no service account %s", key, account)
	}
	for _, v := range list(spec, "volumes") {
		if m := text(v, "configMap.name"); strings.HasPrefix(m, "tramo-") && r.named["ConfigMap "+m] == nil {
			r.wrong("%s: there is no config map %s", key, m)
		}
	}
	grace, _ := strconv.Atoi(text(spec, "terminationGracePeriodSeconds"))
	for _, c := range list(spec, "containers") {
		if at(c, "securityContext.readOnlyRootFilesystem") != true {
			r.wrong("%s: its root is not read-only", key)
		}
		for _, resource := range []string{"requests.cpu", "requests.memory", "limits.memory"} {
			if text(c, "resources."+resource) == "" {
				r.wrong("%s: %s has no resources.%s", key, text(c, "name"), resource)
			}
		}
		for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
			p := text(c, probe+".httpGet.port") + text(c, probe+".tcpSocket.port")
			if p != "" && !slices.Contains(ports(o), p) {
				r.wrong("%s: no container has the port %s of the %s", key, p, probe)
			}
		}
		environment := make(map[string]string)
		for _, e := range list(c, "env") {
			if _, twice := environment[text(e, "name")]; twice {
				r.wrong("%s: %s is set twice", key, text(e, "name"))
			}
			environment[text(e, "name")] = text(e, "value")
		}
		for name, program := range programs {
			if text(c, "name") == name {
				r.program(key, program, environment, c, spec, grace)
			}
		}
	}
}
