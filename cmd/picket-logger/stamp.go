package main

import "time"

// recordHead shows what stands before a record's text.
const recordHead = "2006-01-02T15:04:05.000000000Z stdout F "

const (
	secondLen = len("2006-01-02T15:04:05.")
	stampLen  = len("2006-01-02T15:04:05.000000000Z")
)

// stamp writes the heads of records. Their times grow: records of one instant are a nanosecond apart.
type stamp struct {
	nanos  int64 // of the next record, since 1970
	second int64 // that head shows
	head   [len(recordHead)]byte
}

// set takes the time of the next record. A clock that went back is followed, one that only stood is not.
func (c *stamp) set(now time.Time) {
	n := now.UnixNano()
	if behind := c.nanos - n; behind > 0 && behind < int64(time.Second) {
		return
	}
	c.nanos = n
}

// appendRecord appends one line of the file to out.
func (c *stamp) appendRecord(out []byte, s stream, tag byte, text []byte) []byte {
	if second := c.nanos / int64(time.Second); second != c.second || c.head[0] == 0 {
		c.second = second
		time.Unix(second, 0).UTC().AppendFormat(c.head[:0], "2006-01-02T15:04:05.000000000Z stdout F ")
	}
	n := c.nanos % int64(time.Second)
	for i := stampLen - 2; i >= secondLen; i-- {
		c.head[i] = byte('0' + n%10)
		n /= 10
	}
	c.nanos++
	if s == streamStdout {
		copy(c.head[stampLen:], " stdout ")
	} else {
		copy(c.head[stampLen:], " stderr ")
	}
	c.head[len(recordHead)-2] = tag
	out = append(out, c.head[:]...)
	out = append(out, text...)
	return append(out, '\n')
}
