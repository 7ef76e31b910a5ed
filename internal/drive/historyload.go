package drive

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sync/errgroup"
)

// Appender is one way to append messages to conversations.
type Appender interface {
	// Append returns the place of a message: where it was already or is now. It repeats a
	// request with an unknown outcome, under the same id, until it has an answer.
	Append(ctx context.Context, conversation, id string) (seq int64, err error)
}

// HistoryLoad is a load of writers and readers that records what they are told.
type HistoryLoad struct {
	Seed uint64
	// Writers each send their messages through all of their appenders at once, two messages at a
	// time, so that copies arrive in any order.
	Writers       [][]Appender
	Readers       []*LogReader
	Conversations []string
	PerWriter     int // messages of each, not more than one fifth of them of others
	Doubles       int // one in so many messages has the id of one that another writer sends or has sent
	// Answered is called with the time that an append took, from the call to its answer.
	Answered func(time.Duration)

	done    atomic.Int64
	began   time.Time
	mu      sync.Mutex // guards the rest
	history []porcupine.Operation
	recent  []historyInput
	places  map[historyInput]int64
	differ  int // answers that named another place than an earlier one
	gaps    int // reads with a gap
}

// Run runs the load, and returns when all messages of all writers have their answers.
func (l *HistoryLoad) Run(ctx context.Context) error {
	l.began, l.places = time.Now(), map[historyInput]int64{}
	writing, _ := errgroup.WithContext(ctx)
	reading, stop := context.WithCancel(ctx)
	defer stop()
	var readers errgroup.Group
	for i := range l.Writers {
		writing.Go(func() error { return l.write(ctx, i) })
	}
	for i, reader := range l.Readers {
		readers.Go(func() error {
			random := rand.New(rand.NewPCG(l.Seed, 1<<32+uint64(i)))
			for reading.Err() == nil {
				if _, err := l.Read(reading, reader, l.Conversations[random.IntN(len(l.Conversations))]); err != nil && reading.Err() == nil {
					return err
				}
				pause(reading, time.Duration(random.IntN(40))*time.Millisecond)
			}
			return nil
		})
	}
	err := writing.Wait()
	stop()
	return errors.Join(err, readers.Wait())
}

// write sends the messages of one writer.
func (l *HistoryLoad) write(ctx context.Context, writer int) error {
	random := rand.New(rand.NewPCG(l.Seed, uint64(writer)))
	sending, ctx := errgroup.WithContext(ctx)
	sending.SetLimit(2 * len(l.Writers[writer])) // so that two messages are sent at once
	used := map[historyInput]bool{}
	for n := range l.PerWriter {
		in := historyInput{l.Conversations[random.IntN(len(l.Conversations))], fmt.Sprintf("w%d-%d", writer, n)}
		l.mu.Lock()
		if len(l.recent) > 0 && random.IntN(l.Doubles) == 0 {
			if double := l.recent[len(l.recent)-1-random.IntN(min(len(l.recent), 16))]; !used[double] {
				in = double
			}
		}
		l.recent = append(l.recent, in)
		l.mu.Unlock()
		used[in] = true
		for _, appender := range l.Writers[writer] {
			sending.Go(func() error {
				call := time.Since(l.began)
				seq, err := appender.Append(ctx, in.conversation, in.id)
				if err != nil {
					return fmt.Errorf("append %s to %s: %w", in.id, in.conversation, err)
				}
				l.answered(writer, in, call, seq)
				return nil
			})
		}
	}
	return sending.Wait()
}

// answered records the answer to an append.
func (l *HistoryLoad) answered(writer int, in historyInput, call time.Duration, seq int64) {
	now := time.Since(l.began)
	l.done.Add(1)
	l.Answered(now - call)
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, has := l.places[in]; has && at != seq {
		l.differ++
	}
	l.places[in] = seq
	l.history = append(l.history, porcupine.Operation{ClientId: writer, Input: in, Call: int64(call), Output: historyOutput{seq: seq}, Return: int64(now)})
}

// Read reads a conversation from the beginning, and records and returns what it finds.
func (l *HistoryLoad) Read(ctx context.Context, reader *LogReader, conversation string) (ids []string, err error) {
	call := time.Since(l.began)
	ids, hasGap, err := reader.Read(ctx, conversation)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", conversation, err)
	}
	out := historyOutput{length: len(ids)}
	for _, id := range ids {
		out.hash = hashNext(out.hash, id)
	}
	now := time.Since(l.began)
	l.mu.Lock()
	defer l.mu.Unlock()
	if hasGap {
		l.gaps++
	}
	l.history = append(l.history, porcupine.Operation{ClientId: len(l.Writers), Input: historyInput{conversation: conversation}, Call: int64(call), Output: out, Return: int64(now)})
	return ids, nil
}

// Answers returns the number of appends that have been answered, of Appends.
func (l *HistoryLoad) Answers() int { return int(l.done.Load()) }

// Appends returns the number of appends of the whole load, with all copies.
func (l *HistoryLoad) Appends() (n int) {
	for _, appenders := range l.Writers {
		n += l.PerWriter * len(appenders)
	}
	return n
}

// HistoryReport says what is wrong with a history.
type HistoryReport struct {
	Operations, Messages int
	Differ               int // answers that named another place than an earlier one
	Gaps                 int // reads in which seqs were not 1, 2, 3 and so on
	Lost                 int // answered messages that are not in the log at their place
	Twice                int // messages that are in the log again
	Vanished             int // reads of messages that the log does not have there any more
	Stale                int // reads without a message that was answered or read before they began
	// Impossible counts conversations without an order of operations that explains all answers. It
	// is searched for if nothing else is wrong.
	Impossible int
	IsSearched bool
}

// Check checks the history against the final logs, and searches for an order of its operations for
// as long as max.
func (l *HistoryLoad) Check(logs map[string][]string, max time.Duration) (report HistoryReport, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	report = HistoryReport{Operations: len(l.history), Differ: l.differ, Gaps: l.gaps}
	hashes := map[string][]uint64{} // of the beginnings of logs, by length
	for conversation, ids := range logs {
		seen, hash := map[string]bool{}, uint64(0)
		hashes[conversation] = []uint64{hash}
		for _, id := range ids {
			if seen[id] {
				report.Twice++
			}
			seen[id], hash = true, hashNext(hash, id)
			hashes[conversation] = append(hashes[conversation], hash)
		}
		report.Messages += len(ids)
	}
	for _, o := range l.history {
		in, out := o.Input.(historyInput), o.Output.(historyOutput)
		if whole := hashes[in.conversation]; in.id == "" && (out.length >= len(whole) || whole[out.length] != out.hash) {
			report.Vanished++
		}
	}
	for in, seq := range l.places {
		if ids := logs[in.conversation]; seq < 1 || seq > int64(len(ids)) || ids[seq-1] != in.id {
			report.Lost++
		}
	}
	parts := byConversation(l.history)
	for _, part := range parts {
		report.Stale += staleReads(part)
	}
	if report.Differ+report.Gaps+report.Lost+report.Twice+report.Vanished+report.Stale > 0 {
		return report, nil
	}
	report.IsSearched = true
	until := time.Now().Add(max)
	for _, part := range parts {
		switch porcupine.CheckOperationsTimeout(logModel, part, time.Until(until)) {
		case porcupine.Illegal:
			report.Impossible++
		case porcupine.Unknown:
			err = fmt.Errorf("no order of %d operations was found in %s", len(part), max)
		}
	}
	return report, err
}
