package gatewayserver

import (
	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/ds"
)

type metrics struct {
	connections prometheus.Gauge
	streams     prometheus.Gauge
	closes      *prometheus.CounterVec // by cause and transport
	slow        prometheus.Counter
	resumes     *prometheus.CounterVec // by result
	reconnects  prometheus.Counter
	requests    *prometheus.CounterVec // by operation and result
	reports     map[string]prometheus.Counter
}

// How clients come.
const (
	transportWS   = "ws"
	transportSSE  = "sse"
	transportHTTP = "http"
)

// The causes of the end of a socket or stream.
const (
	causePeer      = "peer"      // the client closed, or its network did
	causeHandshake = "handshake" // no session was started
	causeProtocol  = "protocol"  // invalid UTF-8, a binary frame, or one that is too long
	causeHeartbeat = "heartbeat" // no answer to pings
	causeStalled   = "stalled"   // a write did not get through
	causeSession   = "session"   // the session was revoked
	causeRevoked   = "revoked"   // a stream lost the membership in all that it followed
	causeRenewed   = "renewed"   // a stream has entered too many conversations, and is to be resumed
	causeDrain     = "drain"     // the server stops
	causeFault     = "fault"     // ours
)

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "waxwing_" + name, Help: help})
	}
	m := &metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "waxwing_gateway_sockets", Help: "Open WebSockets of the gateway."}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "waxwing_gateway_streams", Help: "Open SSE streams of the gateway."}),
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "waxwing_transport_closes_total", Help: "WebSockets and SSE streams of the gateway that ended, by cause."}, []string{"cause", "transport"}),
		slow: doors.SlowReaders("gateway"),
		reconnects: counter("gateway_reconnects_total",
			"Sockets and streams by which clients asked to go on where an earlier one had ended, whatever the result."),
		resumes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "waxwing_gateway_resumes_total", Help: "Returns of clients, by result (ok, refused or fault) and transport: sessions resumed on a socket or over HTTP, and streams that go on behind an event."}, []string{"result", "transport"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "waxwing_requests_total", Help: "Requests and frames of the gateway, by operation and result: ok, or the code of the refusal or fault."},
			[]string{"operation", "result"}),
		reports: map[string]prometheus.Counter{
			gateway.ReportGap:                counter("client_gap_reports_total", "Gaps in a conversation that clients report."),
			gateway.ReportDecryptFailure:     counter("mls_decrypt_failures_total", "Messages that clients report they cannot decrypt."),
			gateway.ReportStateReload:        counter("mls_state_reloads_total", "Times that clients report having loaded their MLS state again."),
			gateway.ReportEpochAuthenticator: counter("epoch_attestations_total", "Epoch authenticators that clients report."),
		},
	}
	for _, transport := range []string{transportWS, transportSSE, transportHTTP} {
		for _, result := range []string{resultOK, resultRefused, resultFault} {
			m.resumes.WithLabelValues(result, transport) // 0 is a figure, too
		}
	}
	if r != nil {
		r.MustRegister(m.connections, m.streams, m.closes, m.slow, m.resumes, m.reconnects, m.requests)
		for _, report := range m.reports {
			r.MustRegister(report)
		}
	}
	return m
}

// open returns the gauge of one transport.
func (m *metrics) open(transport string) prometheus.Gauge {
	if transport == transportSSE {
		return m.streams
	}
	return m.connections
}

// operationNone is the label of invalid frames and of types that the session does not know.
const operationNone = "none"

// request counts a call of an endpoint, by its pattern, or a frame, by its type. The labels
// come from our own tables, never from a client.
func (m *metrics) request(operation string, err error) {
	result := "ok"
	if err != nil {
		_, body := answerTo(err)
		result = string(body.Code)
	}
	m.requests.WithLabelValues(operation, result).Inc()
}

// resume counts a resume of a session.
func (m *metrics) resume(transport string, err error) {
	m.resumes.WithLabelValues(resultOf(err), transport).Inc()
	if transport != transportHTTP {
		m.reconnects.Inc()
	}
}

func resultOf(err error) string {
	switch {
	case err == nil:
		return resultOK
	case ds.CodeOf(err) != "":
		return resultRefused
	}
	return resultFault
}

// The results of a resume.
const (
	resultOK      = "ok"
	resultRefused = "refused"
	resultFault   = "fault"
)
