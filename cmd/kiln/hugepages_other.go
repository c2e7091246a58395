//go:build !linux

package main

// useHugePages does nothing: other systems decide by themselves.
func useHugePages() {}
