package netguard

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"waxwing.im/waxwing/internal/hostile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newNameServer(t *testing.T) *hostile.NameServer {
	t.Helper()
	names, end, err := hostile.NewNameServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	return names
}

func resolver(names *hostile.NameServer) *net.Resolver { return ResolverAt(names.Address()) }

func newGuard(t *testing.T, o Options) *Guard {
	t.Helper()
	guard, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guard.Close)
	return guard
}

// server is an https server on this machine and a guard that may call it by name.
func server(t *testing.T, o Options, handler http.HandlerFunc) (guard *Guard, base string) {
	s := httptest.NewTLSServer(handler)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(u.Port())
	names := newNameServer(t)
	names.Set("example.com", "127.0.0.1") // what httptest's certificate is for
	names.Set("other.net", "127.0.0.1")
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	o.RootCAs, o.Resolver, o.Ports, o.Allow = roots, resolver(names), []int{port}, append(o.Allow, "127.0.0.0/8")
	return newGuard(t, o), "https://example.com:" + u.Port()
}

func TestGet(t *testing.T) {
	var got *http.Request
	guard, base := server(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "short and stout")
	})
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1") // not asked
	response, err := guard.Get(context.Background(), base+"/pot", "text/plain", Limits{})
	if err != nil || response.Status != http.StatusTeapot || response.ContentType != "text/plain" || string(response.Body) != "short and stout" {
		t.Fatalf("got %+v, %v", response, err)
	}
	if got.URL.Path != "/pot" || got.Header.Get("Accept") != "text/plain" || got.Header.Get("Accept-Encoding") != "" {
		t.Errorf("asked %v %v", got.URL, got.Header)
	}
}

// TestAnswers: hostile answers of a called server.
func TestAnswers(t *testing.T) {
	const bodyMax = 1000
	guard, base := server(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fits":
			io.WriteString(w, strings.Repeat("x", bodyMax))
		case "/long":
			io.WriteString(w, strings.Repeat("x", bodyMax+1)) // with a Content-Length
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat("x", 100)); err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
		case "/bomb":
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			z.Write(make([]byte, 1<<20))
			z.Close()
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(b.Bytes()[:bodyMax/2])
		case "/headers":
			for i := range 64 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1024))
			}
		case "/silent":
			<-r.Context().Done()
		default: // a status
			status, _ := strconv.Atoi(r.URL.Path[1:])
			w.Header().Set("Location", "https://127.0.0.1/")
			w.WriteHeader(status)
		}
	})
	tests := []struct {
		path string
		want Reason // "" for an answer, "error" for any other error
	}{
		{"/fits", ""}, {"/200", ""}, {"/404", ""}, {"/500", ""},
		{"/long", ReasonTooLong}, {"/endless", ReasonTooLong}, {"/bomb", ReasonEncoding},
		{"/300", ReasonRedirect}, {"/301", ReasonRedirect}, {"/302", ReasonRedirect}, {"/303", ReasonRedirect},
		{"/307", ReasonRedirect}, {"/308", ReasonRedirect},
		{"/headers", "error"},
	}
	for _, test := range tests {
		response, err := guard.Get(context.Background(), base+test.path, "*/*", Limits{BodyBytes: bodyMax})
		var refused *Refused
		switch {
		case errors.As(err, &refused):
			if refused.Reason != test.want {
				t.Errorf("%s: refused for %s, want %q", test.path, refused.Reason, test.want)
			}
		case err != nil:
			if test.want != "error" {
				t.Errorf("%s: got %v, want %q", test.path, err, test.want)
			}
		case test.want != "":
			t.Errorf("%s: got %d with %d bytes, want %q", test.path, response.Status, len(response.Body), test.want)
		}
	}
	if got := refusals(t, guard, ReasonRedirect); got != 6 {
		t.Errorf("counted %v redirects", got)
	}
	if got := refusals(t, guard, ReasonTooLong); got != 2 {
		t.Errorf("counted %v that are too long", got)
	}
	if _, err := guard.Get(context.Background(), base+"/silent", "*/*", Limits{Timeout: 20 * time.Millisecond}); err == nil {
		t.Error("waited for a silent server")
	}
	// Reads after the refusal get no more data.
	response, err := guard.Client(Limits{BodyBytes: 10}).Get(base + "/endless")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	more, again := response.Body.Read(make([]byte, 10))
	if len(body) != 10 || err == nil || more != 0 || again == nil {
		t.Errorf("got %d bytes, %v, then %d, %v", len(body), err, more, again)
	}
}

// refusals reads the counter.
func refusals(t *testing.T, guard *Guard, reason Reason) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(guard.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if metric.GetLabel()[0].GetValue() == string(reason) {
				return metric.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no counter for %s", reason)
	return 0
}

func TestCertificateIsChecked(t *testing.T) {
	guard, base := server(t, Options{}, func(http.ResponseWriter, *http.Request) { t.Error("was called") })
	_, err := guard.Get(context.Background(), strings.Replace(base, "example.com", "other.net", 1), "*/*", Limits{})
	var mismatch x509.HostnameError
	if !errors.As(err, &mismatch) {
		t.Errorf("got %v", err)
	}
}

func TestLoopbackHTTP(t *testing.T) {
	if _, err := New(Options{LoopbackHTTP: true}); err == nil {
		t.Error("outside development mode")
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "plain") }))
	defer plain.Close()
	names := newNameServer(t)
	names.Set("pds.localhost", "10.0.0.1")
	guard := newGuard(t, Options{LoopbackHTTP: true, Dev: true, Resolver: resolver(names)})
	port := plain.URL[strings.LastIndexByte(plain.URL, ':'):]
	for _, url := range []string{"http://127.0.0.1" + port, "http://localhost" + port} {
		response, err := guard.Get(context.Background(), url+"/", "*/*", Limits{})
		if err != nil || string(response.Body) != "plain" {
			t.Errorf("%s: got %v", url, err)
		}
	}
	for url, want := range map[string]Reason{
		"http://host.net/":         ReasonScheme,
		"http://10.0.0.1/":         ReasonScheme,
		"http://localhost.net/":    ReasonScheme,
		"http://u@localhost/":      ReasonUserinfo,
		"http://pds.localhost/":    ReasonAddress, // whatever its name
		"https://127.0.0.1/":       ReasonAddress,
		"https://localhost/":       ReasonHost,
		"https://169.254.169.254/": ReasonAddress,
	} {
		_, err := guard.Get(context.Background(), url, "*/*", Limits{})
		var refused *Refused
		if !errors.As(err, &refused) || refused.Reason != want {
			t.Errorf("%s: got %v, want %s", url, err, want)
		}
	}
}

func TestOptions(t *testing.T) {
	guard := newGuard(t, Options{Allow: []string{"10.0.0.0/8", "192.168.7.7", "ds.corp", "::1"}, Hosts: []string{"corp", "Friends.net"}, Ports: []int{443, 8443}})
	for url, want := range map[string]Reason{
		"https://10.1.2.3/":             "",
		"https://192.168.7.7/":          "",
		"https://[::ffff:192.168.7.7]/": "",
		"https://[::1]/":                "",
		"https://ds.corp/":              "",
		"https://DS.corp:8443/":         "",
		"https://friends.net/":          "",
		"https://a.FRIENDS.net/":        "",
		"https://notfriends.net/":       ReasonListed,
		"https://wiki.corp/":            ReasonHost,
		"https://192.168.7.8/":          ReasonAddress,
		"https://friends.net:444/":      ReasonPort,
	} {
		_, err := guard.CheckURL(url)
		var refused *Refused
		errors.As(err, &refused)
		if want == "" && err != nil || want != "" && (refused == nil || refused.Reason != want) {
			t.Errorf("%s: got %v, want %q", url, err, want)
		}
	}
	for _, bad := range []Options{{Allow: []string{"10.0.0.0/33"}}, {Allow: []string{"a b"}}, {Allow: []string{""}}, {Allow: []string{"1.2.3"}},
		{Allow: []string{"fe80::1%eth0"}}, {Hosts: []string{"*.net"}}, {Ports: []int{0}}, {Ports: []int{65536}}} {
		if _, err := New(bad); err == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

// TestFirstByte: a host has to begin to answer in time, and may take longer to end.
func TestFirstByte(t *testing.T) {
	t.Parallel()
	const firstByte = 2 * time.Second // longer than a handshake takes on a busy machine
	guard, base := server(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-time.After(firstByte + 100*time.Millisecond)
		io.WriteString(w, "late")
	})
	limits := Limits{Timeout: time.Minute, FirstByte: firstByte}
	if response, err := guard.Get(t.Context(), base+"/slow", "text/plain", limits); err != nil || string(response.Body) != "late" {
		t.Errorf("a slow body: %v", err)
	}
	began := time.Now()
	if _, err := guard.Get(t.Context(), base+"/silent", "text/plain", limits); err == nil || time.Since(began) > 30*time.Second {
		t.Errorf("a silent host: %v after %s", err, time.Since(began))
	}
}
