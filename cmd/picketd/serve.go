package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
)

// serve runs the agent from the reading of its configuration to the end.
func serve(s *source, p process) error {
	inJournal, _ := journal.StderrIsJournalStream() // an unreadable variable is no journal
	logs := newLogging(p.stderr, inJournal)
	notify := newNotifier(logs.Logger)
	first, err := s.read()
	if err != nil {
		notify.send("STATUS=" + oneLine(err.Error()))
		return err
	}
	l := s.resolve(first)
	if len(l.problems) > 0 {
		for _, text := range texts(l.problems) {
			fmt.Fprintln(p.stderr, text)
		}
		notify.send("STATUS=" + l.problems[0].String())
		return fmt.Errorf("cannot start: %s in the configuration", count(len(l.problems), "problem"))
	}
	logs.set(l.config.Log)
	for _, text := range l.warnings {
		logs.Warn(text)
	}
	collectOften()
	done := make(chan struct{})
	defer close(done)
	go returnMemory(done)
	l.config.Logger = logs.Logger
	err = newSupervisor(s, p, logs, notify, first).run(l.config)
	if err != nil {
		logs.Error("picketd failed", "error", err)
		notify.send(daemon.SdNotifyStopping + "\nSTATUS=" + oneLine(err.Error()))
	}
	return err
}

// collectOften lets the heap grow by half, not by its size again, before garbage is collected. The agent idles on hosts whose
// memory is for others: it trades a little time, of which it needs next to none, for the smaller resident set. GOGC overrides it.
func collectOften() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// returnEvery is how often returnMemory looks.
const returnEvery = 30 * time.Second

// returnMemory gives what a start or a burst of work needed back to the host once it is over: by itself Go keeps it for long. It
// does nothing while nothing was collected since it last did, so an idle agent pays for it once in two minutes, when Go collects
// by itself. It returns when done is closed.
func returnMemory(done <-chan struct{}) {
	tick := time.NewTicker(returnEvery)
	defer tick.Stop()
	var stats debug.GCStats
	for last := int64(-1); ; {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if debug.ReadGCStats(&stats); stats.NumGC != last {
			debug.FreeOSMemory()
			debug.ReadGCStats(&stats)
			last = stats.NumGC
		}
	}
}
