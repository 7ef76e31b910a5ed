package drive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"waxwing.im/waxwing/deploy/proxies"
)

const (
	proxyStartMax = 30 * time.Second
	proxyStopMax  = time.Second
	proxyLogBytes = 8 << 10
)

// A program is a part of a proxy: a program with a configuration of deploy/proxies, below a main
// configuration as Debian's package ships it. In both and in args, the words FOLDER, MAIN (the
// path of main), FILE (that of the configuration), PORT, CERT and KEY are replaced; SECONDS is a
// minute and MILLIS its milliseconds, or less in a quick run.
type program struct {
	command  string // in the path, or in /usr/sbin
	file     string // of deploy/proxies
	main     string
	args     []string
	version  []string          // arguments that print the version
	replaced map[string]string // what of file is replaced: addresses, ports and paths of certificates
}

// ProxyKind is a reverse proxy of Debian's.
type ProxyKind struct {
	Name     string
	Packages string // of Debian, to install
	programs []program
	cutAfter time.Duration // the time without a byte after which it cuts a connection; 0: never
}

// haproxyMain is the part of Debian's haproxy.cfg that matters here.
const haproxyMain = `
defaults
	mode http
	option httplog
	option dontlognull
	timeout connect 5000
	timeout client MILLIS
	timeout server MILLIS
`

// ProxyKinds returns the proxies with a configuration in deploy/proxies.
func ProxyKinds() []ProxyKind {
	every := map[string]string{
		"/etc/ssl/chat.example.pem": "CERT", "/etc/ssl/chat.example.key": "KEY",
		"/etc/caddy/chat.example.pem": "CERT", "/etc/caddy/chat.example.key": "KEY",
		"/etc/haproxy/chat.example.pem": "CERT", // which has the key too
		"127.0.0.1:8420":                "BACKEND",
	}
	with := func(old, text string) map[string]string {
		all := maps.Clone(every)
		all[old] = text
		return all
	}
	haproxy := func(file string) program {
		return program{command: "haproxy", file: file, main: haproxyMain, args: []string{"-db", "-f", "MAIN", "-f", "FILE"},
			version: []string{"-v"}, replaced: with(":443", "127.0.0.1:PORT")}
	}
	behind := haproxy("varnish-haproxy.cfg")
	behind.replaced["127.0.0.1:6081"] = "NEXT"
	return []ProxyKind{
		{Name: "nginx", Packages: "nginx", cutAfter: time.Minute, programs: []program{{
			command: "nginx", file: "nginx.conf", version: []string{"-v"}, args: []string{"-c", "MAIN", "-p", "FOLDER", "-e", "stderr"},
			replaced: with("listen 443", "listen 127.0.0.1:PORT"), main: `
daemon off;
worker_processes 2;
pid FOLDER/pid;
events { worker_connections 768; }
http {
	sendfile on;
	tcp_nopush on;
	gzip on;
	access_log off;
	client_body_temp_path FOLDER/a;
	proxy_temp_path FOLDER/b;
	fastcgi_temp_path FOLDER/c;
	uwsgi_temp_path FOLDER/d;
	scgi_temp_path FOLDER/e;
	proxy_read_timeout MILLISms;
	proxy_send_timeout MILLISms;
	client_body_timeout MILLISms;
	send_timeout MILLISms;
	include FILE;
}
`}}},
		{Name: "HAProxy", Packages: "haproxy", cutAfter: 50 * time.Second, programs: []program{haproxy("haproxy.cfg")}},
		{Name: "Varnish", Packages: "varnish haproxy gcc libc6-dev", cutAfter: 50 * time.Second, programs: []program{behind, {
			command: "varnishd", file: "varnish.vcl", version: []string{"-V"},
			args: []string{"-F", "-j", "none", "-a", "127.0.0.1:PORT", "-f", "FILE", "-n", "FOLDER/varnish", "-s", "malloc,16m",
				"-p", "pipe_timeout=SECONDS", "-p", "first_byte_timeout=SECONDS", "-p", "between_bytes_timeout=SECONDS",
				"-p", "idle_send_timeout=SECONDS"},
			replaced: with(`.port = "8420"`, `.port = "BACKENDPORT"`),
		}}},
		{Name: "Caddy", Packages: "caddy", programs: []program{{
			command: "caddy", file: "Caddyfile", version: []string{"version"}, args: []string{"run", "--adapter", "caddyfile", "--config", "MAIN"},
			replaced: with("\nchat.example {", "\nhttps://chat.example:PORT {"), main: `
{
	admin off
	auto_https disable_redirects
	default_bind 127.0.0.1
	skip_install_trust
	servers {
		protocols h1 h2
	}
}
import FILE
`}}},
		{Name: "Apache", Packages: "apache2", cutAfter: time.Minute, programs: []program{{
			command: "apache2", file: "apache.conf", version: []string{"-v"}, args: []string{"-f", "MAIN", "-DFOREGROUND"},
			replaced: with("*:443", "*:PORT"), main: apacheMain()}}},
	}
}

// apacheMain returns a main configuration with the modules of apache.conf beside those of Debian
// that change bodies or timeouts.
func apacheMain() string {
	text := `
ServerRoot FOLDER
DefaultRuntimeDir FOLDER
PidFile FOLDER/pid
ServerName localhost
ErrorLog FOLDER/error.log
Listen 127.0.0.1:PORT
TypesConfig /dev/null
`
	modules := ""
	for _, name := range strings.Fields("mpm_event authz_core setenvif mime filter deflate reqtimeout socache_shmcb ssl http2 proxy proxy_http") {
		modules += fmt.Sprintf("LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", name, name)
	}
	return modules + text + `
IncludeOptional /etc/apache2/mods-available/deflate.conf
IncludeOptional /etc/apache2/mods-available/reqtimeout.conf
TimeOut SECONDS
Include FILE
`
}

// Missing returns an error that says what to install if a program of the proxy is not there.
func (k ProxyKind) Missing() error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("%s: proxies are run on Linux only", k.Name)
	}
	for _, p := range k.programs {
		if _, err := p.path(); err != nil {
			return fmt.Errorf("%s is not installed: apt-get install %s (scripts/prepare.sh starts no service)", k.Name, k.Packages)
		}
	}
	return nil
}

// path finds the program; Debian keeps some of them out of the path of ordinary users.
func (p program) path() (string, error) {
	if path, err := exec.LookPath(p.command); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/" + p.command)
}

var versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)+`)

// Version returns the versions of the proxy's programs, as 7.1.1 behind 2.6.12.
func (k ProxyKind) Version(ctx context.Context) (string, error) {
	var versions []string
	for _, p := range slices.Backward(k.programs) {
		path, err := p.path()
		if err != nil {
			return "", err
		}
		out, err := exec.CommandContext(ctx, path, p.version...).CombinedOutput()
		number := versionNumber.FindString(string(out))
		if err != nil || number == "" {
			return "", fmt.Errorf("version of %s: %w %.200q", p.command, err, out)
		}
		versions = append(versions, number)
	}
	return strings.Join(versions, " behind "), nil
}

// Proxy is a running reverse proxy. It is started on the same address again by Restart; one
// goroutine uses it.
type Proxy struct {
	kind   ProxyKind
	folder string
	ports  []int // of the programs; the first is for clients
	uid    int   // the user that runs it, if it is not ours
	gid    int
	fill   func(program, int) *strings.Replacer
	tasks  []*task
}

// task is a program that runs.
type task struct {
	command *exec.Cmd
	output  *logTail
	exited  chan struct{}
}

// Start runs the proxy before a server at backend, HOST:PORT, as a user without rights where we
// are root. Its timeouts are divided by scale. It serves chat.example with a certificate.
func (k ProxyKind) Start(ctx context.Context, backend string, certificate *Certificate, scale int) (p *Proxy, err error) {
	p = &Proxy{kind: k}
	// Not in a folder of a test: other users must get to it.
	if p.folder, err = os.MkdirTemp("", "waxwing-proxy-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if err := p.disown(); err != nil {
		return nil, err
	}
	for range k.programs {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		p.ports = append(p.ports, port)
	}
	_, backendPort, err := net.SplitHostPort(backend)
	if err != nil {
		return nil, err
	}
	p.fill = func(part program, i int) *strings.Replacer {
		next := 0
		if i+1 < len(p.ports) {
			next = p.ports[i+1]
		}
		cut := k.cutAfter / time.Duration(scale)
		return strings.NewReplacer("FOLDER", p.folder, "MAIN", p.name("main", i), "FILE", p.name("file", i),
			"BACKENDPORT", backendPort, "BACKEND", backend, "PORT", strconv.Itoa(p.ports[i]), "NEXT", fmt.Sprintf("127.0.0.1:%d", next),
			"CERT", filepath.Join(p.folder, "cert.pem"), "KEY", filepath.Join(p.folder, "cert.pem"),
			"MILLIS", strconv.FormatInt(cut.Milliseconds(), 10), "SECONDS", strconv.FormatInt(max(1, int64(cut.Seconds())), 10))
	}
	if err := p.write("cert.pem", certificate.text); err != nil {
		return nil, err
	}
	for i, part := range k.programs {
		text, err := part.configuration()
		if err != nil {
			return nil, err
		}
		fill := p.fill(part, i)
		err = errors.Join(p.write(filepath.Base(p.name("main", i)), []byte(fill.Replace(part.main))), p.write(filepath.Base(p.name("file", i)), []byte(fill.Replace(text))))
		if err != nil {
			return nil, err
		}
	}
	return p, p.run(ctx)
}

func (p *Proxy) name(kind string, i int) string {
	return filepath.Join(p.folder, fmt.Sprintf("%s%d", kind, i))
}

// configuration returns the file of deploy/proxies with the words in place of what an operator
// changes. It is an error if one of them is not there: the file is not run as it is shipped.
func (p program) configuration() (string, error) {
	text, err := proxies.Files.ReadFile(p.file)
	if err != nil {
		return "", err
	}
	var pairs []string
	for old, word := range p.replaced {
		pairs = append(pairs, old, word)
	}
	filled := strings.NewReplacer(pairs...).Replace(withoutComments(string(text)))
	for _, port := range []string{"443", "8420", "6081"} {
		if strings.Contains(filled, port) {
			return "", fmt.Errorf("deploy/proxies/%s: %s is not replaced", p.file, port)
		}
	}
	return filled, nil
}

// withoutComments drops the lines that are comments, which may name what is replaced.
func withoutComments(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// disown gives the folder to a user without rights if we are root.
func (p *Proxy) disown() error {
	if os.Getuid() != 0 {
		return nil
	}
	other, err := user.Lookup("nobody")
	if err != nil {
		return err
	}
	if p.uid, err = strconv.Atoi(other.Uid); err != nil {
		return err
	}
	if p.gid, err = strconv.Atoi(other.Gid); err != nil {
		return err
	}
	return os.Chown(p.folder, p.uid, p.gid)
}

// write writes a file of the folder, of the user that runs the proxy.
func (p *Proxy) write(name string, text []byte) error {
	path := filepath.Join(p.folder, name)
	if err := os.WriteFile(path, text, 0o600); err != nil || p.uid == 0 {
		return err
	}
	return os.Chown(path, p.uid, p.gid)
}

// run starts the programs, the one nearest to the server first, and waits until clients can
// connect.
func (p *Proxy) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, proxyStartMax)
	defer cancel()
	for i := len(p.kind.programs) - 1; i >= 0; i-- {
		part := p.kind.programs[i]
		path, err := part.path()
		if err != nil {
			return err
		}
		fill := p.fill(part, i)
		args := make([]string, len(part.args))
		for j, arg := range part.args {
			args[j] = fill.Replace(arg)
		}
		t, err := p.start(path, args)
		if err != nil {
			return err
		}
		if err := t.awaitListening(ctx, fmt.Sprintf("127.0.0.1:%d", p.ports[i])); err != nil {
			log, _ := os.ReadFile(filepath.Join(p.folder, "error.log")) // of the one that cannot log to a pipe
			return fmt.Errorf("%s: %w\n%s%s", part.command, err, t.output, bytes.TrimSpace(log))
		}
	}
	return nil
}

func (p *Proxy) start(path string, args []string) (*task, error) {
	t := &task{command: exec.Command(path, args...), output: &logTail{}, exited: make(chan struct{})}
	t.command.Dir = p.folder
	t.command.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + p.folder, "XDG_DATA_HOME=" + p.folder, "XDG_CONFIG_HOME=" + p.folder, "TMPDIR=" + p.folder}
	t.command.Stdout, t.command.Stderr = t.output, t.output
	t.command.SysProcAttr = attributesOf(p.uid, p.gid)
	t.command.WaitDelay = time.Second
	if err := startProcess(t.command, func(error) { close(t.exited) }); err != nil {
		return nil, err
	}
	p.tasks = append(p.tasks, t)
	return t, nil
}

func (t *task) awaitListening(ctx context.Context, address string) error {
	for {
		network, err := net.Dial("tcp", address)
		if err == nil {
			return network.Close()
		}
		select {
		case <-t.exited:
			return errors.New("it does not start")
		case <-ctx.Done():
			return fmt.Errorf("it does not listen: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Address returns the address for clients, HOST:PORT.
func (p *Proxy) Address() string { return fmt.Sprintf("127.0.0.1:%d", p.ports[0]) }

// Restart stops the proxy with all its connections, and starts it again.
func (p *Proxy) Restart(ctx context.Context) error {
	p.stop()
	return p.run(ctx)
}

// stop ends the programs: a proxy that is asked politely waits for its connections, some for
// ever.
func (p *Proxy) stop() {
	for _, t := range p.tasks {
		endGroup(t.command.Process.Pid, false)
		select {
		case <-t.exited:
		case <-time.After(proxyStopMax):
		}
		endGroup(t.command.Process.Pid, true)
		<-t.exited
	}
	p.tasks = nil
}

// Close ends the proxy and removes its files.
func (p *Proxy) Close() {
	p.stop()
	_ = os.RemoveAll(p.folder)
}
