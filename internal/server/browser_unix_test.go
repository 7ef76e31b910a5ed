//go:build unix

package server_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/server"
)

var update = flag.Bool("update", false, "take the pictures in docs again")

// TestBrowserOfAnotherOrigin: a page of another origin calls everything that it may, in a real
// browser, and is refused the rest.
func TestBrowserOfAnotherOrigin(t *testing.T) {
	browser := needBrowser(t)
	c := server.DefaultConfig(t.TempDir())
	c.OpsListen, c.Limit = "127.0.0.1:0", []string{"conversation_lists=1/1h"}
	s := start(t, c)
	key, err := identity.DeriveAccountKey([]byte("seed of the tests"), "ann", identity.ES256)
	if err != nil {
		t.Fatal(err)
	}
	token := func(method string) string {
		now := time.Now()
		token, err := identity.SignToken(key, identity.Claims{Issuer: key.DID(), Audience: s.DID(), Method: method, IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	given, err := json.Marshal(map[string]string{"url": s.URL(), "ops": s.OpsURL(), "did": s.DID(),
		"start": token(gateway.AuthMethod), "socket": token(gateway.AuthMethod),
		"getConvos": token(xrpc.GetConvos), "ticket": token(xrpc.GetSubscriptionTicket)})
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("testdata/browser.html")
	if err != nil {
		t.Fatal(err)
	}
	reported := make(chan []byte, 1)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			fmt.Fprint(w, strings.Replace(string(page), "GIVEN", string(given), 1))
		case "/report":
			report, _ := io.ReadAll(r.Body)
			reported <- report
		default:
			http.NotFound(w, r)
		}
	}))
	defer other.Close()
	ended := browser.begin(t, "--remote-debugging-port=0", other.URL)

	var report []byte
	select {
	case report = <-reported:
	case out := <-ended:
		t.Fatalf("the browser ended: %s", out)
	case <-time.After(time.Minute):
		t.Fatal("the page reports nothing")
	}
	var got map[string]any
	if err := json.Unmarshal(report, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"did document": s.DID(), "lexicons": "a,b", "gateway": s.DID(),
		"session": 200., "room": 200., "message": 200., "events": "conv.event", "socket": "session.ready",
		"list": 200., "limit": "429 true", "bad token": "401 Bearer",
		"xrpc": true, "xrpc without method": 501., "xrpc events": "alive", "unknown path": 404.,
		"cookies": "TypeError", "PUT": "TypeError", "unknown path with a token": "TypeError", "metrics": "TypeError",
		"phone": 0., "desk": 0.,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the page got (-want +got):\n%s", diff)
	}
}

// TestPictures takes the pictures of the page at / with -update, and checks their sizes.
func TestPictures(t *testing.T) {
	for name, size := range map[string]string{"phone": "360,1350", "desk": "1440,920"} {
		file := filepath.Join("..", "..", "docs", "page-"+name+".png")
		if *update {
			c := server.DefaultConfig(t.TempDir())
			c.Version, c.PublicURL = "v0.1.0", "https://chat.example"
			browser := needBrowser(t)
			path, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			out := <-browser.begin(t, "--screenshot="+path, "--window-size="+size, "--hide-scrollbars", start(t, c).URL())
			t.Logf("%s", out)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if c, err := png.DecodeConfig(f); err != nil || fmt.Sprintf("%d,%d", c.Width, c.Height) != size {
			t.Errorf("%s is %d×%d (%v), want %s", file, c.Width, c.Height, err, size)
		}
	}
}

// browser is the command of a Chromium.
type browser string

func needBrowser(t *testing.T) browser {
	t.Helper()
	for _, command := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(command); err == nil {
			return browser(path)
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("chromium is missing; scripts/prepare.sh installs it")
	}
	t.Skip("NOT TESTED: chromium is missing; scripts/prepare.sh installs it")
	return ""
}

// begin starts the browser with a fresh profile; the test ends it with its processes. The
// channel receives its output when it ends by itself.
func (b browser) begin(t *testing.T, args ...string) <-chan []byte {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, string(b), append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--disable-breakpad", "--disable-background-networking", "--no-first-run", "--user-data-dir=" + t.TempDir()}, args...)...)
	command.Env = append(os.Environ(), "HOME="+t.TempDir())
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	ended, gone := make(chan []byte, 1), make(chan struct{})
	go func() {
		defer close(gone)
		out, err := command.CombinedOutput()
		ended <- fmt.Appendf(out, "%v", err)
	}()
	t.Cleanup(func() { cancel(); <-gone })
	return ended
}
