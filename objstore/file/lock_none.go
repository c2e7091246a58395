//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package file

import (
	"errors"
	"os"
)

// tryLock reports that this system has no locks of the kind we need.
func tryLock(*os.File) (bool, error) { return false, errors.ErrUnsupported }
