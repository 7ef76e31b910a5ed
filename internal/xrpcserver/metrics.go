package xrpcserver

import (
	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/doors"
)

type metrics struct {
	calls         *prometheus.CounterVec // by method and result
	subscriptions prometheus.Gauge
	closes        *prometheus.CounterVec // by cause
	slow          prometheus.Counter
	events        *prometheus.CounterVec // by kind
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "waxwing_xrpc_calls_total", Help: "XRPC calls, by method and result: ok, or the name of the error."}, []string{"method", "result"}),
		subscriptions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "waxwing_xrpc_subscriptions", Help: "Open subscriptions to events."}),
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "waxwing_xrpc_subscription_closes_total", Help: "Subscriptions that ended, by cause."}, []string{"cause"}),
		slow: doors.SlowReaders("xrpc"),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "waxwing_xrpc_events_total", Help: "Events sent to subscribers, by kind."}, []string{"kind"}),
	}
	if r != nil {
		r.MustRegister(m.calls, m.subscriptions, m.closes, m.slow, m.events)
	}
	return m
}

// event counts an event that is sent. Kinds are those of the lexicons.
func (m *metrics) event(kind string) { m.events.WithLabelValues(kind).Inc() }

// call counts a call. Both labels come from tables of ours, never from a client.
func (m *metrics) call(method string, err error) {
	result := "ok"
	if err != nil {
		result = answerTo(method, err).name
	}
	m.calls.WithLabelValues(method, result).Inc()
}
