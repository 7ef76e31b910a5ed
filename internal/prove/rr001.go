package prove

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/drive"
	"waxwing.im/waxwing/internal/identity"
)

var rr001 = Proof{
	ID: "RR-001", Title: "resume",
	Attack: "Clients of both APIs, in the same conversations, with WebSockets and with streams of events, lose their connections over and over (reset within a frame, half-open, closed before an ack, the answer to a resume or for a ticket lost, proxy restarted, closed cleanly) " +
		"and the server is killed, while all of them send.",
	Mitigation: "One log per conversation, written before the ack; every reader goes on from its own cursor, sessions and stream positions are stored, and a repeated message id is answered with the place that it has.",
	Detection:  []string{"waxwing_gateway_reconnects_total", "waxwing_gateway_resumes_total", "waxwing_xrpc_subscription_closes_total", "waxwing_records_replayed_total", "waxwing_client_gap_reports_total"},
	Run:        proveResume,
}

const (
	resumeHitsMin = 0.95 // of the disconnects; with fewer the row shows too little
	resumeBacklog = 1100 // more than any page
)

func proveResume(ctx context.Context, r *Run) error {
	database, err := r.NewDatabase(ctx)
	if err != nil {
		return err
	}
	server, err := r.NewServer(database, "--limit", "all=off", "--ping-interval", "2s")
	if err != nil {
		return err
	}
	memory := r.Watch(ctx, server)
	churn := drive.Churn{
		Seed: r.Seed, Clients: Size(r, 24, 50), Conversations: Size(r, 12, 50), PerClient: Size(r, 6, 20), Backlog: resumeBacklog,
		Disconnects: Size(r, 72, 10_000), KillEvery: Size(r, 36, 500), Calm: Size(r, 24, 2000),
		Pace: Size(r, time.Second, 3*time.Second), Silence: Size(r, 2*time.Second, 5*time.Second),
		Serve: func(ctx context.Context) (*drive.Process, error) {
			err := server.Start(ctx)
			return server.Process, err
		},
	}
	total := churn.Disconnects + churn.Calm
	baseline := sync.OnceValue(func() error { return memory.Baseline(ctx) })
	churn.Progress = func(done int) error {
		r.At(done, total, "disconnects of %d clients", churn.Clients)
		if done < churn.Disconnects+churn.Calm/10 {
			return nil
		}
		return baseline() // of the last server: a kill frees memory, too
	}
	report, err := churn.Run(ctx)
	for line := range strings.Lines(report.String()) {
		r.Did("%s", strings.TrimSpace(line))
	}
	forced, hits := report.Forced()
	ends := map[string]float64{}
	for _, fault := range drive.Faults {
		ends[fault.String()] = float64(report.Clients.Ends[fault])
	}
	r.Bars("disconnects by fault", ends)
	r.Exactly("gaps in what clients received", float64(report.Clients.Gaps), 0, "")
	r.Exactly("messages that clients received again", float64(report.Clients.Duplicates), 0, "")
	r.Exactly("sessions and streams that could not be resumed", float64(report.Clients.ResumesFailed), 0, "")
	r.Exactly("acked messages that are not in the log at their place", float64(report.Clients.Lost), 0, "")
	r.Exactly("messages that are in a log twice", float64(report.Twice), 0, "")
	r.Exactly("histories of clients that differ from the log", float64(report.Clients.Different), 0, "")
	r.Exactly("messages of members that the server refused", float64(report.Clients.Refused), 0, "")
	r.Exactly("forced disconnects", float64(forced), float64(total), "")
	r.AtLeast("disconnects that hit a message without its ack", 100*float64(hits)/float64(max(forced, 1)), 100*resumeHitsMin, "%")
	// A third of the clients each, of those of the AT Protocol's door a third with streams.
	by := report.ByTransport
	r.AtLeast("disconnects of clients of the gateway with WebSockets", float64(by[drive.OverWebSocket]), float64(total/4), "")
	r.AtLeast("disconnects of clients of the gateway with SSE and the inbox", float64(by[drive.OverStream]), float64(total/4), "")
	r.AtLeast("disconnects of subscriptions over XRPC", float64(by[drive.OverXRPC]+by[drive.OverXRPCStream]), float64(total/4), "")
	r.AtLeast("disconnects of subscriptions over XRPC that were event streams", float64(by[drive.OverXRPCStream]), float64(total/12), "")
	// A cursor of many conversations may be the one of a second before, while many conversations move. The seqs show
	// what the client has.
	r.Figure("messages that cursors of many conversations brought again, at their place", float64(report.Clients.Repeated), "")
	if err != nil {
		return err
	}
	if err := reportGap(ctx, r, server); err != nil {
		return err
	}
	metrics, err := server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	// Since the last start of the server.
	r.Moved(drive.Metrics{}, metrics, `gateway_reconnects_total`, `gateway_resumes_total{result="ok",transport="ws"}`, `gateway_resumes_total{result="ok",transport="sse"}`,
		`gateway_resumes_total{result="ok",transport="http"}`, `xrpc_subscription_closes_total{cause="peer"}`, `records_replayed_total`, `client_gap_reports_total`)
	r.Exactly("gaps that the server found in its log", metrics["waxwing_log_gap_detected_total"], 0, "")
	if err := memory.Check(ctx); err != nil {
		return err
	}
	return server.Stop()
}

// reportGap reports a gap as a client would that had found one.
func reportGap(ctx context.Context, r *Run, server *Server) error {
	key, err := identity.DeriveAccountKey(fmt.Append(nil, "resume ", r.Seed), "reporter", identity.ES256)
	if err != nil {
		return err
	}
	caller, err := drive.SignIn(ctx, server.URL, server.DID, key, "reporter", gateway.FeatureReport)
	if err != nil {
		return err
	}
	frame, err := gateway.EncodeFrame(gateway.TypeReport, gateway.StringID("report"), &gateway.Report{Kind: gateway.ReportGap})
	if err != nil {
		return err
	}
	var answer json.RawMessage
	return caller.Post(ctx, "/v1/inbox", json.RawMessage(frame), &answer)
}
