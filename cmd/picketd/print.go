package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxLine bounds a line that quotes what somebody wrote, in bytes.
const maxLine = 1000

// oneLine takes line breaks and control characters out of a text and cuts it: it may quote a file of any content.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxLine {
		text = strings.ToValidUTF8(text[:maxLine], "") + " ..."
	}
	return text
}

// count is "1 warning" or "2 warnings".
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
