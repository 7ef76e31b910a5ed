package xrpcserver

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/netguard"
)

func TestRequestFailover(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann")
		must(t, w.bindTo("c1", "ann", "group-1", 4))
		var out xrpc.RequestFailoverOutput
		w.call("ann", xrpc.RequestFailover, object{"convoId": "c1"}).into(&out)
		if out != (xrpc.RequestFailoverOutput{NewSequencerDID: testDID, ConvoID: "c1", Epoch: 5, SequencerTerm: 1}) {
			t.Errorf("%+v", out) // nothing moves the epoch but a commit (F-9)
		}
		w.call("eve", xrpc.RequestFailover, object{"convoId": "c1"}).refused("403 NotMember")
		w.call("ann", xrpc.RequestFailover, object{"convoId": "c2"}).refused("403 NotMember")
		w.call("ann", xrpc.RequestFailover, object{}).refused("400 InvalidRequest")
	})
}

func TestGetDeliveryStatus(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann")
		w.send("ann", message("c1", uuid(1), 0, 512))
		w.send("ann", message("c1", uuid(2), 0, 512))
		var out xrpc.GetDeliveryStatusOutput
		w.call("ann", xrpc.GetDeliveryStatus, params("convoId", "c1", "messageIds", strings.Join([]string{uuid(2), uuid(7), uuid(1), uuid(2)}, ","))).into(&out)
		if len(out.Statuses) != 2 || out.Statuses[0].MessageID != uuid(2) || out.Statuses[1].Status != "local_only" || out.Statuses[1].TotalRemoteDS != 0 {
			t.Errorf("%+v", out)
		}
		w.call("eve", xrpc.GetDeliveryStatus, params("convoId", "c1", "messageIds", uuid(1))).refused("403 NotMember")
		w.call("ann", xrpc.GetDeliveryStatus, params("convoId", "c1")).refused("400 InvalidRequest")
		if got := w.call("ann", xrpc.GetDeliveryStatus, params("convoId", "c1", "messageIds", "")).fields()["statuses"].([]any); len(got) != 0 {
			t.Errorf("of nothing: %v", got)
		}
	})
}

// resolving has the door resolve DIDs by a directory and a PDS on this machine, which
// count what they are asked: did:plc:ann… names a delivery service in its profile,
// did:plc:ds… in its document; the others have something wrong with them.
func resolving(t testing.TB) (change func(*setup), fetches *atomic.Int64) {
	t.Helper()
	fetches = new(atomic.Int64)
	profile := map[string]any{"value": map[string]any{"deliveryService": "https://ds.elsewhere.com/", "supportedCipherSuites": []string{"S1"}}}
	var host *httptest.Server
	// did answers a document of did:plc:NAME, with a PDS on this machine.
	host = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		if r.URL.Path == "/xrpc/com.atproto.repo.getRecord" {
			q := r.URL.Query()
			if q.Get("collection") != "blue.catbird.mls.profile" || q.Get("rkey") != "self" {
				http.Error(rw, "?", http.StatusTeapot)
				return
			}
			switch q.Get("repo") {
			case plc("ann"):
				_ = json.NewEncoder(rw).Encode(profile)
			case plc("bad"):
				_, _ = rw.Write([]byte(`{"value":{"deliveryService":"https://127.0.0.1/"}}`))
			case plc("ill"):
				http.Error(rw, "?", http.StatusInternalServerError)
			default:
				http.Error(rw, `{"error":"RecordNotFound"}`, http.StatusBadRequest)
			}
			return
		}
		did := strings.TrimPrefix(r.URL.Path, "/")
		services := []map[string]string{{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": host.URL}}
		switch did {
		case plc("ds"):
			services = []map[string]string{{"id": did + "#atproto_mls", "type": "AtprotoMlsService", "serviceEndpoint": "https://other.ds.com"}}
		case plc("bare"):
			services = nil
		case plc("gone"):
			http.NotFound(rw, r)
			return
		}
		_ = json.NewEncoder(rw).Encode(map[string]any{"id": did, "service": services})
	}))
	t.Cleanup(host.Close)
	guard, err := netguard.New(netguard.Options{Dev: true, LoopbackHTTP: true})
	must(t, err)
	t.Cleanup(guard.Close)
	resolver, err := identity.NewResolver(identity.ResolverOptions{Guard: guard, Directory: host.URL})
	must(t, err)
	t.Cleanup(resolver.Close)
	return func(s *setup) { s.door.Resolver = resolver }, fetches
}

func TestResolveDeliveryService(t *testing.T) {
	change, fetches := resolving(t)
	w := newWorld(t, change)
	for _, test := range []struct{ did, want string }{
		{testDID, "https://ds.example"},
		{testDID + "#atproto_mls", "https://ds.example"},
		{plc("ann"), "https://ds.elsewhere.com"},
		{plc("ds"), "https://other.ds.com"},
		{plc("none"), "404 EndpointNotFound"},
		{plc("bare"), "404 EndpointNotFound"},
		{plc("gone"), "404 EndpointNotFound"},
		{plc("bad"), "404 EndpointNotFound"},
		{plc("ill"), "502 ResolutionFailed"},
		{w.did("ann"), "404 EndpointNotFound"}, // did:key
		{"did:web:10.0.0.1", "404 EndpointNotFound"},
		{"nonsense", "400 InvalidRequest"},
		{"did:plc", "400 InvalidRequest"},
		{"did:web:" + strings.Repeat("a", ds.AccountBytesMax), "400 InvalidRequest"}, // longer than any account
	} {
		a := w.call("ann", xrpc.ResolveDeliveryService, params("did", test.did))
		a.nsid = test.did
		if a.status != http.StatusOK {
			a.refused(test.want)
			continue
		}
		var out xrpc.ResolveDeliveryServiceOutput
		a.into(&out)
		if out.Endpoint != test.want {
			t.Errorf("%s: %+v, want %s", test.did, out, test.want)
		}
	}
	before := fetches.Load()
	var out xrpc.ResolveDeliveryServiceOutput
	w.call("bob", xrpc.ResolveDeliveryService, params("did", plc("ann"))).into(&out)
	if len(out.SupportedCipherSuites) != 1 || fetches.Load() != before {
		t.Errorf("%+v after %d more fetches", out, fetches.Load()-before)
	}
}

// plc is a did:plc that says whose it is.
func plc(name string) string { return "did:plc:" + name + strings.Repeat("a", 24-len(name)) }
