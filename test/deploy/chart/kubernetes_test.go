package chart_test

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/api/pod"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	"k8s.io/kubernetes/pkg/apis/batch"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	"k8s.io/kubernetes/pkg/registry/apps/deployment"
	"k8s.io/kubernetes/pkg/registry/autoscaling/horizontalpodautoscaler"
	"k8s.io/kubernetes/pkg/registry/networking/ingress"
	"k8s.io/kubernetes/pkg/registry/networking/networkpolicy"
	"k8s.io/kubernetes/pkg/registry/policy/poddisruptionbudget"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
)

// strategies are what the API server does with a new object, by kind.
var strategies = map[string]rest.RESTCreateStrategy{
	"Deployment":              deployment.Strategy,
	"HorizontalPodAutoscaler": horizontalpodautoscaler.Strategy,
	"Ingress":                 ingress.Strategy,
	"NetworkPolicy":           networkpolicy.Strategy,
	"PodDisruptionBudget":     poddisruptionbudget.Strategy,
}

// strict refuses fields that a kind does not have, or has twice.
var strict = serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// validate says what the API server of a cluster with pod security "restricted" would refuse, or warn of, in a document.
func validate(document string) error {
	object, kind, err := strict.Decode([]byte(document), nil, nil)
	if runtime.IsNotRegisteredError(err) {
		return validateCustom(document)
	}
	if err != nil {
		return err
	}
	legacyscheme.Scheme.Default(object)
	errs := []error{restricted(object)}
	internal, err := legacyscheme.Scheme.UnsafeConvertToVersion(object, schema.GroupVersion{Group: kind.Group, Version: runtime.APIVersionInternal})
	if err != nil {
		return err
	}
	m, err := meta.Accessor(internal)
	if err != nil {
		return err
	}
	rest.FillObjectMetaSystemFields(m)
	switch o := internal.(type) {
	// Their strategies need half of the API server, which would take longer to compile than all the rest.
	case *core.Service:
		if o.Spec.ClusterIP == core.ClusterIPNone { // which the API server repeats
			o.Spec.ClusterIPs = []string{core.ClusterIPNone}
		}
		errs = append(errs, validation.ValidateServiceCreate(o).ToAggregate())
	case *core.ConfigMap:
		errs = append(errs, validation.ValidateConfigMap(o).ToAggregate())
	case *batch.Job:
		// The API server makes a selector, by the UID.
		o.Spec.ManualSelector, o.Spec.Selector = new(true), &metav1.LabelSelector{MatchLabels: o.Spec.Template.Labels}
		options := batchvalidation.JobValidationOptions{PodValidationOptions: pod.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)}
		errs = append(errs, batchvalidation.ValidateJobCreate(o, options).ToAggregate())
		for _, w := range pod.GetWarningsForPodTemplate(context.Background(), field.NewPath("spec", "template"), &o.Spec.Template, nil) {
			errs = append(errs, fmt.Errorf("the API server warns: %s", w))
		}
	case *core.ServiceAccount:
		errs = append(errs, validation.ValidateServiceAccount(o).ToAggregate())
	default:
		strategy, ok := strategies[kind.Kind]
		if !ok {
			return fmt.Errorf("nothing here validates the kind %s", kind.Kind)
		}
		warnings := &warnings{}
		ctx := request.WithNamespace(context.Background(), m.GetNamespace())
		ctx = request.WithRequestInfo(ctx, &request.RequestInfo{IsResourceRequest: true, Verb: "create", APIGroup: kind.Group, APIVersion: kind.Version, Namespace: m.GetNamespace()})
		errs = append(errs, rest.BeforeCreate(strategy, warning.WithWarningRecorder(ctx, warnings), internal))
		errs = append(errs, warnings.all...)
	}
	return errors.Join(errs...)
}

// warnings are those of the API server to a client.
type warnings struct{ all []error }

func (w *warnings) AddWarning(_, text string) {
	w.all = append(w.all, fmt.Errorf("the API server warns: %s", text))
}

// restricted checks the pods of an object by the pod security standard of this name.
func restricted(object runtime.Object) error {
	var template corev1.PodTemplateSpec
	switch o := object.(type) {
	case *appsv1.Deployment:
		template = o.Spec.Template
	case *batchv1.Job:
		template = o.Spec.Template
	default:
		return nil
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	results := evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &metav1.ObjectMeta{}, &template.Spec)
	if r := policy.AggregateCheckResults(results); !r.Allowed {
		return fmt.Errorf("pod security restricted: %s (%s)", r.ForbiddenReason(), r.ForbiddenDetail())
	}
	return nil
}
