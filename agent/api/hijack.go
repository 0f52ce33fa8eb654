package api

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// hijacker tells when the connection of an upgraded request is lost. net/http stops watching a connection that was taken over,
// and the streaming libraries read it but tell nobody: without this a command would outlive the client that started it.
type hijacker struct {
	http.ResponseWriter
	gone func()
}

func (h *hijacker) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil { // those of the server's slow-client protection
		return nil, nil, errors.Join(err, conn.Close())
	}
	watched := &watchedConn{Conn: conn, gone: h.gone}
	// What the server had read ahead stays readable through the buffer; everything after it comes from the watched connection.
	ahead, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	watched.ahead = append(watched.ahead, ahead...)
	return watched, bufio.NewReadWriter(bufio.NewReader(watched), bufio.NewWriter(watched)), nil
}

// watchedConn calls gone once, when reading or writing has failed or the connection was closed.
type watchedConn struct {
	net.Conn
	ahead []byte // only touched by the one reader
	once  sync.Once
	gone  func()
}

func (c *watchedConn) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if err != nil {
		c.once.Do(c.gone)
	}
	return n, err
}

func (c *watchedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		c.once.Do(c.gone)
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.once.Do(c.gone)
	return c.Conn.Close()
}
