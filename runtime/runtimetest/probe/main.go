// Probe is the process of benchmarks' containers: the first thing it does is to write down when that was. "probe FILE" appends the
// time in nanoseconds since 1970 as a line to FILE, then sleeps until it is told to end.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	now := time.Now()
	if err := write(os.Args[1], now); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
}

func write(path string, now time.Time) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(strconv.FormatInt(now.UnixNano(), 10) + "\n"); err != nil {
		return err
	}
	return f.Close()
}
