package main

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// logged is what cut makes of a stream that arrives in chunks.
func logged(t testing.TB, chunks ...string) []record {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	log := newLogFile(path, 10<<20, 5)
	r, w := io.Pipe()
	go func() {
		for _, c := range chunks {
			_, _ = io.WriteString(w, c)
		}
		w.Close()
	}()
	cut(r, log, streamStdout)
	log.close()
	return readRecords(t, path)
}

func TestLinesAreCutAsContainerdDoes(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for name, c := range map[string]struct {
		chunks []string
		want   []string // tag and text
	}{
		"nothing":                     {nil, nil},
		"one line":                    {[]string{"a\n"}, []string{"Fa"}},
		"empty lines":                 {[]string{"\n\n"}, []string{"F", "F"}},
		"line in pieces":              {[]string{"a", "b", "c\nd", "\n"}, []string{"Fabc", "Fd"}},
		"unterminated end":            {[]string{"a\nb"}, []string{"Fa", "Pb"}},
		"carriage return":             {[]string{"a\r\nb\rc\n\r\n"}, []string{"Fa", "Fb\rc", "F"}},
		"carriage return in between":  {[]string{"a\r", "\n"}, []string{"Fa"}},
		"longest line":                {[]string{long + "\n"}, []string{"F" + long}},
		"longest line, then newline":  {[]string{long, "\n"}, []string{"F" + long}},
		"longest line, then \\r\\n":   {[]string{long, "\r\n"}, []string{"F" + long}},
		"longest line, \\r, \\n":      {[]string{long + "\r", "\n"}, []string{"F" + long}},
		"longest line, \\r, no \\n":   {[]string{long + "\r", "x\n"}, []string{"P" + long, "F\rx"}},
		"one byte more":               {[]string{long + "y\n"}, []string{"P" + long, "Fy"}},
		"one byte more, later":        {[]string{long, "y", "\n"}, []string{"P" + long, "Fy"}},
		"long unterminated end":       {[]string{long + long + "z"}, []string{"P" + long, "P" + long, "Pz"}},
		"exactly two, unterminated":   {[]string{long + long}, []string{"P" + long, "P" + long}},
		"bytes that are not text":     {[]string{"\x00\xff\x1b[0m\n"}, []string{"F\x00\xff\x1b[0m"}},
		"more than is read in one go": {[]string{strings.Repeat("abc\n", readSize)}, strings.Split(strings.Repeat("Fabc ", readSize)[:5*readSize-1], " ")},
	} {
		t.Run(name, func(t *testing.T) {
			got := logged(t, c.chunks...)
			if len(got) != len(c.want) {
				t.Fatalf("%d records, want %d", len(got), len(c.want))
			}
			for i, r := range got {
				if r.tag+r.text != c.want[i] || r.stream != "stdout" {
					t.Fatalf("record %d is %s %.60q, want %.60q", i, r.tag, r.text, c.want[i])
				}
			}
		})
	}
}

func TestTimesGrow(t *testing.T) {
	records := logged(t, strings.Repeat("same\n", 5000), "same\n")
	for i := 1; i < len(records); i++ {
		if records[i].at <= records[i-1].at {
			t.Fatalf("record %d is of %s, the one before of %s", i, records[i].at, records[i-1].at)
		}
	}
}

func FuzzCut(f *testing.F) {
	f.Add([]byte("a\nb\r\n\nc"), uint16(3), uint16(0))
	f.Add([]byte("a\r\n"), uint16(2), uint16(maxLine-1))
	f.Fuzz(func(t *testing.T, data []byte, size, pad uint16) {
		data = append(bytes.Repeat([]byte{'x'}, int(pad)), data...)
		var chunks []string
		for rest := data; len(rest) > 0; {
			n := min(len(rest), int(size)+1)
			chunks = append(chunks, string(rest[:n]))
			rest = rest[n:]
		}
		records := logged(t, chunks...)
		want := strings.ReplaceAll(string(data), "\r\n", "\n")
		if got := text(records, "stdout"); got != want {
			t.Fatalf("logged %.200q, want %.200q", got, want)
		}
		for _, r := range records {
			if len(r.text) > maxLine+1 || r.tag == "F" && len(r.text) > maxLine {
				t.Fatalf("record of %d bytes", len(r.text))
			}
		}
	})
}
