package chart_test

import (
	"strings"
	"testing"
)

// The chart's clamd.conf is deploy/clamav's, on which verdicts depend.
func TestClamdConfiguration(t *testing.T) {
	t.Parallel()
	generated(t, "deploy/helm/tramo/files/clamd.conf", read(t, "deploy/clamav/clamd.conf"))
	documents, _ := render(t, merge(parse(t, base), parse(t, `clamd: {enabled: true, scanMaxMiB: 700}`)))
	var conf, setting string
	for _, d := range documents {
		o := parse(t, d)
		if text(o, "kind") == "ConfigMap" {
			conf, _ = at(o, "data").(values)["clamd.conf"].(string)
		}
		for _, c := range list(o, "spec.template.spec.containers") {
			for _, e := range list(c, "env") {
				if text(e, "name") == "TRAMO_SCAN_MAX" {
					setting = text(e, "value")
				}
			}
		}
	}
	for _, line := range []string{"StreamMaxLength 700M", "MaxScanSize 1400M", "MaxFileSize 1400M", "AlertExceedsMax yes"} {
		if !strings.Contains(conf, "\n"+line+"\n") {
			t.Errorf("clamd.conf has no line %q:\n%s", line, conf)
		}
	}
	if setting != "700MiB" {
		t.Errorf("TRAMO_SCAN_MAX is %s", setting)
	}
}
