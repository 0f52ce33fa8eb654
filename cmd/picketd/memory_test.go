package main

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// fileKB is how much of files this process has in memory.
func fileKB(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "RssFile:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no RssFile")
	return 0
}

func TestProgramIsUnmappedAndGoesOn(t *testing.T) {
	before := fileKB(t)
	unmapProgram()
	if after := fileKB(t); after >= before {
		t.Errorf("%d kB of files were in memory, now %d", before, after)
	}
	// Whatever is called now comes back from the file.
	if strings.ToUpper("it goes on") != "IT GOES ON" {
		t.Error("the program does not go on")
	}
}

func TestOnlyWhatCannotBeWrittenIsUnmapped(t *testing.T) {
	const maps = `00400000-013c6000 r-xp 00000000 fe:00 1 /bin/picketd
013c6000-024fc000 r--p 00fc6000 fe:00 1 /bin/picketd
024fc000-0259e000 rw-p 020fc000 fe:00 1 /bin/picketd
7f0000000000-7f0000001000 r--p 00000000 fe:00 2 /lib/other
7f0000002000-7f0000003000 r--p 00000000 00:00 0
nonsense
`
	want := []mapping{{0x400000, 0xfc6000}, {0x13c6000, 0x1136000}}
	if got := programMappings([]byte(maps), "/bin/picketd"); !slices.Equal(got, want) {
		t.Errorf("%x", got)
	}
}
