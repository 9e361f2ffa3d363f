package chart_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// customResources are the files of the kinds that are not Kubernetes' own, in the modules of crds/go.mod.
var customResources = map[string]string{
	"gateway.networking.k8s.io/v1 HTTPRoute":  "sigs.k8s.io/gateway-api:config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
	"monitoring.coreos.com/v1 ServiceMonitor": "github.com/prometheus-operator/prometheus-operator:example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
	"monitoring.coreos.com/v1 PrometheusRule": "github.com/prometheus-operator/prometheus-operator:example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
	"keda.sh/v1alpha1 ScaledObject":           "github.com/kedacore/keda/v2:config/crd/bases/keda.sh_scaledobjects.yaml",
	"keda.sh/v1alpha1 TriggerAuthentication":  "github.com/kedacore/keda/v2:config/crd/bases/keda.sh_triggerauthentications.yaml",
	"external-secrets.io/v1 ExternalSecret":   "github.com/external-secrets/external-secrets:config/crds/bases/external-secrets.io_externalsecrets.yaml",
}

// modules returns the directories of the modules of crds/go.mod, which it downloads if need be.
var modules = sync.OnceValues(func() (map[string]string, error) {
	cmd := exec.Command("go", "mod", "download", "-json")
	cmd.Dir = "crds"
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("download the modules of custom resources: %w: %s", err, out)
	}
	dirs := make(map[string]string)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct{ Path, Dir string }
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			return dirs, nil
		} else if err != nil {
			return nil, err
		}
		dirs[m.Path] = m.Dir
	}
})

// A custom kind is validated as the API server does.
type custom struct {
	schema    *structural.Structural
	validator validation.SchemaValidator
	rules     *cel.Validator
}

var (
	customMu sync.Mutex
	customs  = make(map[string]*custom)
)

// customOf returns a kind, such as "keda.sh/v1alpha1 ScaledObject".
func customOf(kind string) (*custom, error) {
	customMu.Lock()
	defer customMu.Unlock()
	if c, ok := customs[kind]; ok {
		return c, nil
	}
	where, ok := customResources[kind]
	if !ok {
		return nil, fmt.Errorf("nothing here validates %s", kind)
	}
	dirs, err := modules()
	if err != nil {
		return nil, err
	}
	module, path, _ := strings.Cut(where, ":")
	file, err := os.ReadFile(filepath.Join(dirs[module], path))
	if err != nil {
		return nil, err
	}
	var published apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(file, &published); err != nil {
		return nil, err
	}
	var definition apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&published, &definition, nil); err != nil {
		return nil, err
	}
	version, _, _ := strings.Cut(strings.SplitN(kind, "/", 2)[1], " ")
	schema, err := apiextensions.GetSchemaForVersion(&definition, version)
	if err != nil {
		return nil, err
	}
	c := &custom{}
	if c.schema, err = structural.NewStructural(schema.OpenAPIV3Schema); err != nil {
		return nil, err
	}
	if c.validator, _, err = validation.NewSchemaValidator(schema.OpenAPIV3Schema); err != nil {
		return nil, err
	}
	c.rules = cel.NewValidator(c.schema, true, celconfig.PerCallLimit)
	customs[kind] = c
	return c, nil
}

// validateCustom says what is wrong with a document of a kind that is not Kubernetes' own.
func validateCustom(document string) error {
	text, err := yaml.YAMLToJSONStrict([]byte(document))
	if err != nil {
		return err
	}
	var object map[string]any
	if err := utiljson.Unmarshal(text, &object); err != nil { // numbers without a fraction are integers
		return err
	}
	kind := fmt.Sprintf("%v %v", object["apiVersion"], object["kind"])
	c, err := customOf(kind)
	if err != nil {
		return err
	}
	defaulting.Default(object, c.schema)
	var errs []error
	for _, path := range pruning.PruneWithOptions(deepCopy(object), c.schema, true, structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}) {
		errs = append(errs, fmt.Errorf("%s: unknown field %q", kind, path))
	}
	for _, err := range validation.ValidateCustomResource(nil, object, c.validator) {
		errs = append(errs, fmt.Errorf("%s: %w", kind, err))
	}
	if c.rules != nil {
		found, _ := c.rules.Validate(context.Background(), nil, c.schema, object, nil, celconfig.RuntimeCELCostBudget)
		for _, err := range found {
			errs = append(errs, fmt.Errorf("%s: %w", kind, err))
		}
	}
	return errors.Join(errs...)
}

// deepCopy copies an object that came from YAML.
func deepCopy(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for k, e := range v {
			c[k] = deepCopy(e)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = deepCopy(e)
		}
		return c
	}
	return v
}
