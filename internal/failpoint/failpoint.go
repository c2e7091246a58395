// Package failpoint lets a test make code fail at a named point.
//
// Code that can fail says Hit at each point of interest; a Set that is nil, as it is outside of tests, does nothing there. A
// test adds failures, and asks afterwards which points were passed and which have failed.
package failpoint

import (
	"fmt"
	"sync"
)

// Set is the points of one object. The zero value fails nowhere. It may be used concurrently.
type Set struct {
	mu     sync.Mutex
	faults map[string]*fault
	failed map[string]int
}

// fault is what is to happen at a point.
type fault struct {
	do   func() error
	left int
}

// Fail has the next so many hits of a point return err.
func (s *Set) Fail(point string, err error, times int) {
	s.Do(point, times, func() error { return fmt.Errorf("injected at %s: %w", point, err) })
}

// Do has the next so many hits of a point call do and return what it returns.
func (s *Set) Do(point string, times int, do func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults == nil {
		s.faults, s.failed = map[string]*fault{}, map[string]int{}
	}
	s.faults[point] = &fault{do, times}
}

// Failed returns how often a point has done what Fail or Do said.
func (s *Set) Failed(point string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed[point]
}

// Hit is called where the point is.
func (s *Set) Hit(point string) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	f := s.faults[point]
	if f == nil || f.left == 0 {
		s.mu.Unlock()
		return nil
	}
	f.left--
	s.failed[point]++
	s.mu.Unlock()
	return f.do()
}
