package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/server"
	"waxwing.im/waxwing/internal/testwait"
)

// proxy is a program that stands between clients and a server.
type proxy struct {
	command string
	config  string   // with PORT, BACKEND, FOLDER and what times names
	args    []string // likewise; CONFIG is the file of config
	times   map[string]time.Duration
}

// proxies are configured as their documentation says for WebSockets, with their default
// timeouts.
var proxies = map[string]proxy{
	"nginx": {"nginx", `
daemon off;
master_process off;
pid FOLDER/pid;
error_log stderr;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path FOLDER/a;
	proxy_temp_path FOLDER/b;
	fastcgi_temp_path FOLDER/c;
	uwsgi_temp_path FOLDER/d;
	scgi_temp_path FOLDER/e;
	map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
	server {
		listen 127.0.0.1:PORT;
		location / {
			proxy_pass http://BACKEND;
			proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection $connection_upgrade;
			proxy_read_timeout TIMEOUTms;
			proxy_send_timeout TIMEOUTms;
		}
	}
}
`, []string{"-c", "CONFIG", "-p", "FOLDER"}, map[string]time.Duration{"TIMEOUT": time.Minute}},
	"apache": {"apache2", `
ServerRoot FOLDER
DefaultRuntimeDir FOLDER
PidFile FOLDER/pid
ServerName localhost
User www-data
Group www-data
ErrorLog /dev/stderr
Listen 127.0.0.1:PORT
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
TimeOut SECONDS
ProxyPass / http://BACKEND/ upgrade=websocket
`, []string{"-f", "CONFIG", "-DFOREGROUND"}, map[string]time.Duration{"SECONDS": time.Minute}},
	"varnish": {"varnishd", `
vcl 4.1;
backend default { .path = "/nowhere"; }
sub vcl_recv { return (pipe); }
sub vcl_pipe {
	if (req.http.upgrade) {
		set bereq.http.upgrade = req.http.upgrade;
		set bereq.http.connection = req.http.connection;
	}
}
`, []string{"-F", "-j", "none", "-a", "127.0.0.1:PORT", "-f", "CONFIG", "-n", "FOLDER/v", "-s", "malloc,16m", "-p", "pipe_timeout=SECONDS"},
		map[string]time.Duration{"SECONDS": time.Minute}},
	"haproxy": {"haproxy", `
defaults
	mode http
	timeout connect 5s
	timeout client TIMEOUTms
	timeout server TIMEOUTms
frontend clients
	bind 127.0.0.1:PORT
	default_backend servers
backend servers
	server one BACKEND
`, []string{"-db", "-f", "CONFIG"}, map[string]time.Duration{"TIMEOUT": 50 * time.Second}},
}

// TestIdleBehindProxies: no idle socket or stream is cut by what stands before a server, for
// longer than two of its timeouts. Everything is twenty times faster than in the world but
// with WAXWING_FULL=1.
func TestIdleBehindProxies(t *testing.T) {
	scale := time.Duration(20)
	if os.Getenv("WAXWING_FULL") == "1" {
		scale = 1
	}
	c := server.DefaultConfig(t.TempDir())
	c.Limit = []string{"all=off"}
	c.PingInterval, c.Heartbeat = c.PingInterval/scale, c.Heartbeat/scale
	s := start(t, c)
	for name, p := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := p.run(t, strings.TrimPrefix(s.URL(), "http://"), scale)
			idle(t, s, name, "http://"+address, 130*time.Second/scale)
		})
	}
}

// run starts the proxy before a backend, until the test ends, and returns its address.
func (p proxy) run(t *testing.T, backend string, scale time.Duration) string {
	path, err := exec.LookPath(p.command)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + p.command) // which is not in every path
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing; run scripts/prepare.sh", p.command)
		}
		t.Skipf("NOT TESTED: %s is missing; scripts/prepare.sh installs it", p.command)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	folder := t.TempDir()
	_, port, _ := net.SplitHostPort(address)
	host, backendPort, _ := net.SplitHostPort(backend)
	words := []string{"FOLDER", folder, "PORT", port, "CONFIG", filepath.Join(folder, "config"), "BACKEND", backend,
		`.path = "/nowhere"`, fmt.Sprintf(".host = %q; .port = %q", host, backendPort)}
	for word, timeout := range p.times {
		timeout /= scale
		n := timeout.Milliseconds()
		if word == "SECONDS" {
			n = int64(timeout.Seconds())
		}
		words = append(words, word, fmt.Sprint(n))
	}
	fill := strings.NewReplacer(words...)
	if err := os.WriteFile(filepath.Join(folder, "config"), []byte(fill.Replace(p.config)), 0o600); err != nil {
		t.Fatal(err)
	}
	args := make([]string, len(p.args))
	for i, arg := range p.args {
		args[i] = fill.Replace(arg)
	}
	command := exec.Command(path, args...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		if t.Failed() {
			t.Logf("%s says:\n%s", p.command, output.String())
		}
	})
	testwait.Until(t, p.command+" listens", func() bool {
		select {
		case <-ended:
			t.Fatalf("%s does not start", p.command)
		default:
		}
		network, err := net.Dial("tcp", address)
		if err == nil {
			network.Close()
		}
		return err == nil
	})
	return address
}

// idle opens a socket and a stream of each door through a proxy, leaves them alone, and
// wants a message to arrive on each of them.
func idle(t *testing.T, s *server.Server, name, through string, silence time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), silence+time.Minute)
	defer cancel()
	key, err := identity.DeriveAccountKey([]byte("proxies"), name, identity.ES256)
	if err != nil {
		t.Fatal(err)
	}
	direct, err := dial(s, key, "phone")
	if err != nil {
		t.Fatal(err)
	}
	defer direct.ws.CloseNow()
	if err := direct.room(s, name); err != nil {
		t.Fatal(err)
	}
	ends := make(chan error, 4) // nil: the message has come
	open := map[string]func() (func() error, error){
		"gateway socket":      func() (func() error, error) { return gatewaySocket(ctx, s, key, through, name) },
		"gateway stream":      func() (func() error, error) { return eventStream(ctx, through+"/v1/sse?conv_id="+name, direct.token) },
		"subscription":        func() (func() error, error) { return subscription(ctx, s, key, through) },
		"subscription stream": func() (func() error, error) { return eventStream(ctx, through+subscriptionPath(s, key), "") },
	}
	for kind, open := range open {
		await, err := open()
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		go func() {
			err := await()
			if err != nil {
				err = fmt.Errorf("%s: %w", kind, err)
			}
			ends <- err
		}()
	}
	select {
	case err := <-ends:
		t.Fatalf("cut, or sent what nobody wrote: %v", err)
	case <-time.After(silence): // which is what is tested
	}
	request, err := http.NewRequestWithContext(ctx, "POST", s.URL()+"/v1/inbox",
		strings.NewReader(fmt.Sprintf(`{"v":1,"t":"conv.send","body":{"conv_id":%q,"msg_id":"m","env":"the message"}}`, name)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+direct.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if response.Body.Close(); response.StatusCode != http.StatusOK {
		t.Fatalf("the message: %s", response.Status)
	}
	for range open {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
}

// gatewaySocket follows a conversation as a client does that answers each question.
func gatewaySocket(ctx context.Context, s *server.Server, key *identity.AccountKey, through, conversation string) (func() error, error) {
	now := time.Now()
	token, err := identity.SignToken(key, identity.Claims{Issuer: key.DID(), Audience: s.DID(), Method: identity.SessionStartMethod, IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		return nil, err
	}
	ws, _, err := websocket.Dial(ctx, through+"/v1/ws", nil)
	if err != nil {
		return nil, err
	}
	say := func(frame string) error { return ws.Write(ctx, websocket.MessageText, []byte(frame)) }
	if err := say(fmt.Sprintf(`{"v":1,"t":"session.start","body":{"auth_token":%q,"device_id":"tablet"}}`, token)); err != nil {
		return nil, err
	}
	if _, ready, err := ws.Read(ctx); err != nil || !bytes.Contains(ready, []byte("session.ready")) {
		return nil, fmt.Errorf("heard %s, %v", ready, err)
	}
	if err := say(fmt.Sprintf(`{"v":1,"t":"conv.subscribe","body":{"conv_id":%q}}`, conversation)); err != nil {
		return nil, err
	}
	return func() error {
		defer ws.CloseNow()
		for {
			_, frame, err := ws.Read(ctx)
			switch {
			case err != nil:
				return err
			case string(frame) == `{"v":1,"t":"ping"}`:
				if err := say(`{"v":1,"t":"pong"}`); err != nil {
					return err
				}
			case bytes.Contains(frame, []byte("the message")):
				return nil
			default:
				return fmt.Errorf("heard %s", frame)
			}
		}
	}, nil
}

// subscriptionPath is the path of a subscription to all conversations, with a ticket.
func subscriptionPath(s *server.Server, key *identity.AccountKey) string {
	now := time.Now()
	token, err := identity.SignToken(key, identity.Claims{Issuer: key.DID(), Audience: s.DID(), Method: xrpc.GetSubscriptionTicket, IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		return ""
	}
	request, err := http.NewRequest("POST", s.URL()+"/xrpc/"+xrpc.GetSubscriptionTicket, strings.NewReader(`{"convoIds":[]}`))
	if err != nil {
		return ""
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	var out xrpc.GetSubscriptionTicketOutput
	_ = json.NewDecoder(response.Body).Decode(&out) // without a ticket the subscription is refused
	return "/xrpc/" + xrpc.SubscribeEvents + "?ticket=" + url.QueryEscape(out.Ticket)
}

func subscription(ctx context.Context, s *server.Server, key *identity.AccountKey, through string) (func() error, error) {
	ws, _, err := websocket.Dial(ctx, through+subscriptionPath(s, key), nil)
	return func() error {
		defer ws.CloseNow()
		_, _, err := ws.Read(ctx)
		return err
	}, err
}

// eventStream reads text/event-stream up to its first item.
func eventStream(ctx context.Context, address, token string) (func() error, error) {
	request, err := http.NewRequestWithContext(ctx, "GET", address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "text/event-stream")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("answered %s", response.Status)
	}
	return func() error {
		defer response.Body.Close()
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data:") {
				return nil
			}
		}
		return fmt.Errorf("the stream has ended: %v", lines.Err())
	}, nil
}
