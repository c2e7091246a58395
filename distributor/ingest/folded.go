package ingest

import (
	"bytes"
	"fmt"
	"strconv"
)

// parseFolded reads format groups, as flamegraph.pl and its friends write stacks: frames joined by semicolons, root
// first, a blank and how often the stack was seen.
//
//	main;serve;read 12
//	main;serve 3
func parseFolded(s *stacks, body []byte) error {
	return eachLine(body, func(line []byte) error {
		blank := bytes.LastIndexByte(line, ' ')
		if blank < 0 {
			return fmt.Errorf("%.80q has no count: want frames joined by semicolons, a blank and a count", line)
		}
		count := line[blank+1:]
		n, err := strconv.ParseInt(string(count), 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("the count %.40q is not a whole number", count)
		}
		return s.addLine(bytes.TrimSpace(line[:blank]), n)
	})
}

// parseLines reads format lines: a stack as in format groups, but one line for each time that it was seen.
func parseLines(s *stacks, body []byte) error {
	return eachLine(body, func(line []byte) error { return s.addLine(line, 1) })
}

// eachLine calls visit with every line that is not blank. Its errors say which line it was.
func eachLine(body []byte, visit func([]byte) error) error {
	for n := 1; len(body) > 0; n++ {
		var line []byte
		line, body, _ = bytes.Cut(body, []byte{'\n'})
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if err := visit(line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return nil
}

// addLine adds a stack of frames joined by semicolons.
func (s *stacks) addLine(stack []byte, n int64) error {
	s.stack = s.stack[:0]
	for more := len(stack) > 0; more; {
		var name []byte
		name, stack, more = bytes.Cut(stack, []byte{';'})
		if err := s.push(name); err != nil {
			return err
		}
	}
	return s.add(n)
}
