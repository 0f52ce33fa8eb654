package main

import (
	"reflect"
	"slices"
	"strings"
)

// suggestKey says what an unknown key of a section may have been meant to be, or else which keys there are.
func suggestKey(word string, section reflect.Type, prefix string) string {
	var here []string
	for i := range section.NumField() {
		if name := section.Field(i).Tag.Get("yaml"); name != "-" {
			here = append(here, name)
		}
	}
	if name, ok := nearest(word, here); ok {
		return ": did you mean " + prefix + name + "?"
	}
	var elsewhere []string
	for _, k := range keys {
		if last := k.name[strings.LastIndexByte(k.name, '.')+1:]; strings.EqualFold(last, word) {
			elsewhere = append(elsewhere, k.name)
		}
	}
	if len(elsewhere) > 0 {
		return ": did you mean " + strings.Join(elsewhere, " or ") + "?"
	}
	return "; the keys here are " + strings.Join(here, ", ")
}

// maxWord is the longest word that is worth a guess, in bytes.
const maxWord = 64

// nearest finds the candidate most like word, if any is so like it that it may have been mistyped.
func nearest(word string, candidates []string) (string, bool) {
	if len(word) > maxWord {
		return "", false
	}
	word = strings.ToLower(word)
	best, least := "", 3 // a slip or two
	for _, c := range candidates {
		if d := distance(word, strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	return best, best != "" && least*2 <= len(word)
}

// distance counts the letters to insert, leave out or replace to make b of a (Levenshtein's).
func distance(a, b string) int {
	row := make([]int, len(b)+1) // of a's letters so far against each beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := slices.Clone(row)
		row[0] = i + 1
		for j := range len(b) {
			replaced := before[j]
			if a[i] != b[j] {
				replaced++
			}
			row[j+1] = min(before[j+1]+1, row[j]+1, replaced)
		}
	}
	return row[len(b)]
}
