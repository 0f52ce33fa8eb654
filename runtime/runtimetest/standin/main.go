// Standin takes the place of any program in an image of runtimetest.StandIn's. What it is told to do is in /standin.json, for all
// containers of the image: run with one of the listed command lines it ends at once, as a probe's or a hook's command; else it takes
// connections and runs until it is told to end, with SIGTERM or, where it stands in for an init container, SIGUSR1: then with 0. It
// interprets no script, and does nothing else but for cp: the file that "cp FROM TO" makes is the stand-in, for hooks that run it.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// orders are /standin.json.
type orders struct {
	Exec   [][]string       `json:"exec"`   // command lines of probes and hooks
	Listen map[int32]string `json:"listen"` // port -> http, https or udp
}

func main() {
	var o orders
	data, err := os.ReadFile("/standin.json")
	if err == nil {
		err = json.Unmarshal(data, &o)
	}
	if err == nil && !slices.ContainsFunc(o.Exec, func(c []string) bool { return slices.Equal(c, os.Args) }) {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

func run(o orders) error {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGUSR1)
	for port, kind := range o.Listen {
		if err := serve(port, kind); err != nil {
			return err
		}
	}
	if len(os.Args) == 3 && path.Base(os.Args[0]) == "cp" {
		if err := copyTo(os.Args[2]); err != nil {
			return err
		}
	}
	fmt.Println("standin for", strings.Join(os.Args, " "))
	<-end
	return nil
}

func copyTo(file string) error {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return os.WriteFile(file, program, 0o755)
}

// serve answers every HTTP request with 200, and every packet with itself. A port that another of the pod's containers has is left to
// that one: the orders are for all of the image's containers.
func serve(port int32, kind string) error {
	address := ":" + strconv.Itoa(int(port))
	if kind == "udp" {
		conn, err := net.ListenPacket("udp", address)
		if err == nil {
			go echo(conn)
		}
		return notTaken(err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return notTaken(err)
	}
	if kind == "https" {
		certificate, err := selfSigned()
		if err != nil {
			return err
		}
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}})
	}
	go func() { _ = http.Serve(listener, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) }()
	return nil
}

func notTaken(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil
	}
	return err
}

func echo(conn net.PacketConn) {
	packet := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(packet)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo(packet[:n], from)
	}
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, err
}
