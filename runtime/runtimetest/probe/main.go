// Probe is the process of benchmarks' containers: the first thing it does is to write down when that was. "probe FILE" appends the
// time in nanoseconds since 1970 as a line to FILE, then sleeps until it is told to end, and appends when that was, as a negative number.
// "probe FILE ADDRESS" also takes connections there, and ends them.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	now := time.Now()
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	if err := write(os.Args[1], now.UnixNano()); err != nil {
		fail(err)
	}
	if len(os.Args) > 2 {
		if err := serve(os.Args[2]); err != nil {
			fail(err)
		}
	}
	<-end
	if err := write(os.Args[1], -time.Now().UnixNano()); err != nil {
		fail(err)
	}
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "probe:", err)
	os.Exit(1)
}

func write(path string, nanoseconds int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(strconv.FormatInt(nanoseconds, 10) + "\n"); err != nil {
		return err
	}
	return f.Close()
}
