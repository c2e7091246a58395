package objstore

import (
	"fmt"
	"strings"
)

const (
	maxKeyLength     = 1024 // bytes: the limit of S3, GCS and Azure
	maxElementLength = 255  // bytes: the longest file name of common file systems
)

// CheckKey returns ErrKey unless key is one that every provider stores under exactly that name: elements joined by
// single slashes, each of ASCII letters, digits, dots, dashes and underscores, and neither "." nor "..".
//
// Every bucket checks the keys it is given. The set is this narrow so that no store has to escape anything, and so
// that a name with any other character is free for a provider's own use.
func CheckKey(key string) error {
	if len(key) > maxKeyLength {
		return fmt.Errorf("%w: %d bytes are more than %d", ErrKey, len(key), maxKeyLength)
	}
	for element := range strings.SplitSeq(key, "/") {
		if problem := checkElement(element); problem != "" {
			return fmt.Errorf("%w: %q %s", ErrKey, key, problem)
		}
	}
	return nil
}

// CheckPrefix returns ErrKey unless some key that CheckKey accepts could start with prefix.
func CheckPrefix(prefix string) error {
	folder, rest := SplitPrefix(prefix)
	if folder != "" {
		if err := CheckKey(folder); err != nil {
			return err
		}
	}
	if strings.Trim(rest, ".") == "" { // the start of a name, or nothing yet
		return nil
	}
	return CheckKey(prefix)
}

// SplitPrefix cuts a prefix into the folder that holds everything under it ("" is the root) and the start of the names
// in that folder.
func SplitPrefix(prefix string) (folder, rest string) {
	i := strings.LastIndexByte(prefix, '/')
	if i < 0 {
		return "", prefix
	}
	if i == 0 {
		return "/", prefix[1:] // no key starts with a slash, and CheckKey says so
	}
	return prefix[:i], prefix[i+1:]
}

func checkElement(element string) (problem string) {
	switch {
	case element == "":
		return "has an empty element"
	case element == "." || element == "..":
		return "has a relative element"
	case len(element) > maxElementLength:
		return fmt.Sprintf("has an element of more than %d bytes", maxElementLength)
	}
	for i := range len(element) {
		if !keyByte(element[i]) {
			return fmt.Sprintf("has the byte %q", element[i])
		}
	}
	return ""
}

func keyByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}
