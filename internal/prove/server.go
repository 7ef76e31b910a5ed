package prove

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/drive"
)

const (
	sampleInterval = 250 * time.Millisecond
	heapSettle     = time.Minute // after the load, before the heap is compared
	heapGrowthMax  = 1.1
)

// Server is a server in a process of its own, with an address that stays over restarts.
type Server struct {
	*drive.Process // the running one; another one after Start
	Ops            drive.Ops
	Surroundings   drive.Surroundings // of the next Start

	run  *Run
	args []string
}

// NewServer prepares a server on a database that NewDatabase has made, with further options of
// serve. It has an ops listener and logs warnings; nothing runs until Start.
func (r *Run) NewServer(database []string, options ...string) (*Server, error) {
	port, err := drive.FreePort()
	if err != nil {
		return nil, err
	}
	opsPort, err := drive.FreePort()
	if err != nil {
		return nil, err
	}
	s := &Server{run: r, Ops: drive.Ops{URL: fmt.Sprintf("http://127.0.0.1:%d", opsPort)}}
	s.args = append([]string{"--listen", fmt.Sprintf("127.0.0.1:%d", port), "--ops-listen", fmt.Sprintf("127.0.0.1:%d", opsPort), "--log-level", "warn"}, database...)
	s.args = append(s.args, options...)
	return s, nil
}

// Serve starts a server on a fresh database.
func (r *Run) Serve(ctx context.Context, options ...string) (*Server, error) {
	database, err := r.NewDatabase(ctx)
	if err != nil {
		return nil, err
	}
	s, err := r.NewServer(database, options...)
	if err != nil {
		return nil, err
	}
	return s, s.Start(ctx)
}

// ServeNodes starts two nodes of a service where the database can be shared, else one.
func (r *Run) ServeNodes(ctx context.Context, options ...string) (nodes []*Server, err error) {
	database, err := r.NewDatabase(ctx)
	if err != nil {
		return nil, err
	}
	port, err := drive.FreePort()
	if err != nil {
		return nil, err
	}
	options = append(options, "--public-url", fmt.Sprintf("http://localhost:%d", port))
	count := 1
	if r.Database.Kind == PostgreSQL {
		count = 2
		keys, err := r.Folder()
		if err != nil {
			return nil, err
		}
		options = append(options, "--service-key", filepath.Join(keys, "service.key"))
	}
	for range count {
		node, err := r.NewServer(database, options...)
		if err != nil {
			return nil, err
		}
		if err := node.Start(ctx); err != nil {
			return nil, err
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

// Start starts the server, again after a kill, and waits until it accepts requests. The process
// ends with the run.
func (s *Server) Start(ctx context.Context) error {
	process, err := s.Surroundings.Serve(ctx, s.run.binary, s.args...)
	if err != nil {
		return err
	}
	s.run.Cleanup(process.Kill)
	s.Process = process
	return nil
}

// Memory watches the memory of a server: a plot of its resident size, and its live heap early
// in the load and after it.
type Memory struct {
	server *Server
	stop   context.CancelFunc
	done   sync.WaitGroup
	base   int64
}

// Watch plots the memory of a server until Check or the end of the run.
func (r *Run) Watch(ctx context.Context, s *Server) *Memory {
	ctx, stop := context.WithCancel(ctx)
	m := &Memory{server: s, stop: stop}
	resident, heap := r.Plot("memory of the server", "MiB", "resident"), r.Plot("memory of the server", "MiB", "heap in use")
	m.done.Go(func() {
		ticker := time.NewTicker(sampleInterval)
		defer ticker.Stop()
		for {
			if metrics, err := s.Ops.Metrics(ctx); err == nil { // an error: it is being restarted
				resident.Add(metrics["process_resident_memory_bytes"] / (1 << 20))
				heap.Add(metrics["go_memstats_heap_inuse_bytes"] / (1 << 20))
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
	r.Cleanup(func() { stop(); m.done.Wait() })
	return m
}

// Baseline measures the live heap, after the first tenth of a load.
func (m *Memory) Baseline(ctx context.Context) (err error) {
	m.base, err = m.server.Ops.LiveHeap(ctx)
	return err
}

// Check compares the live heap a minute after the load with that of Baseline. In a quick run
// both are small beside what a server keeps anyway, so that the ratio is only shown.
func (m *Memory) Check(ctx context.Context) error {
	r := m.server.run
	r.Step("waiting for the heap to settle")
	if err := r.Settle(ctx, heapSettle); err != nil {
		return err
	}
	live, err := m.server.Ops.LiveHeap(ctx)
	if err != nil {
		return err
	}
	metrics, err := m.server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	m.stop()
	m.done.Wait()
	r.Figure("live heap after the first tenth", float64(m.base)/(1<<20), "MiB")
	r.Figure("live heap at the end", float64(live)/(1<<20), "MiB")
	r.Figure("resident memory at the end", metrics["process_resident_memory_bytes"]/(1<<20), "MiB")
	ratio := float64(live) / float64(max(m.base, 1))
	if r.Quick {
		r.Figure("live heap, end to first tenth", ratio, "×")
	} else {
		r.AtMost("live heap, end to first tenth", ratio, heapGrowthMax, "×")
	}
	return nil
}
