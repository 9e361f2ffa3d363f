package clamd

import "github.com/prometheus/client_golang/prometheus"

var (
	upDesc = prometheus.NewDesc("tramo_clamd_up",
		"Whether the clamd at this address answered last time. While none does, uploads wait: alert on max(tramo_clamd_up) == 0.", []string{"address"}, nil)
	scansDesc      = prometheus.NewDesc("tramo_clamd_scans_running", "Scans that this process has running at the clamd.", []string{"address"}, nil)
	signaturesDesc = prometheus.NewDesc("tramo_clamd_signatures_timestamp_seconds",
		"When the daily signatures in use were made. Older than three days means that freshclam does not run.", []string{"address"}, nil)
)

// Describe implements [prometheus.Collector].
func (*Scanner) Describe(ch chan<- *prometheus.Desc) {
	ch <- upDesc
	ch <- scansDesc
	ch <- signaturesDesc
}

// Collect implements [prometheus.Collector]. It asks no clamd: the last answers count.
func (s *Scanner) Collect(ch chan<- prometheus.Metric) {
	for _, d := range s.daemons {
		up := 0.0
		if at := d.state.Load(); at != nil && at.err == nil {
			up = 1
			if !at.version.SignedAt.IsZero() {
				ch <- prometheus.MustNewConstMetric(signaturesDesc, prometheus.GaugeValue, float64(at.version.SignedAt.Unix()), d.name)
			}
		}
		ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, up, d.name)
		ch <- prometheus.MustNewConstMetric(scansDesc, prometheus.GaugeValue, float64(d.running.Load()), d.name)
	}
}
