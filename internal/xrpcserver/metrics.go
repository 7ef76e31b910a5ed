package xrpcserver

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	calls         *prometheus.CounterVec // by method and result
	subscriptions prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "waxwing_xrpc_calls_total", Help: "XRPC calls, by method and result: ok, or the name of the error."}, []string{"method", "result"}),
		subscriptions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "waxwing_xrpc_subscriptions", Help: "Open subscriptions to events."}),
	}
	if r != nil {
		r.MustRegister(m.calls, m.subscriptions)
	}
	return m
}

// call counts a call. Both labels come from tables of ours, never from a client.
func (m *metrics) call(method string, err error) {
	result := "ok"
	if err != nil {
		result = answerTo(method, err).name
	}
	m.calls.WithLabelValues(method, result).Inc()
}
