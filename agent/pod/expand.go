package pod

import "strings"

// expand replaces $(NAME) as Kubernetes does in env values, command and args: $$ is a dollar sign, and what cannot be
// resolved stays as it is written.
func expand(s string, lookup func(name string) (string, bool)) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			out.WriteString(s)
			return out.String()
		}
		out.WriteString(s[:i])
		s = s[i+1:]
		switch s[0] {
		case '$':
			out.WriteByte('$')
			s = s[1:]
		case '(':
			name, rest, closed := strings.Cut(s[1:], ")")
			if !closed {
				out.WriteString("$(")
				s = s[1:]
				continue
			}
			if value, ok := lookup(name); ok {
				out.WriteString(value)
			} else {
				out.WriteString("$(" + name + ")")
			}
			s = rest
		default:
			out.WriteByte('$')
		}
	}
}
