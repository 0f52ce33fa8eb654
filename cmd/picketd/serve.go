package main

import (
	"fmt"

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
