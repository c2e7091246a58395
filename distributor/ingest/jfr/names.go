package jfr

import (
	"bytes"
	"regexp"
)

// madeUp are classes and libraries whose names the JVM, or a library, makes up anew in each process. What is left of each
// is the first group, an underscore, and the second group if there is one: the flame graphs of two processes then have
// the same frames.
var madeUp = []struct {
	has     string // a text that every such name has: most names have none, and looking for it is cheap
	pattern *regexp.Regexp
}{
	{"GeneratedMethodAccessor", regexp.MustCompile(`^(jdk/internal/reflect/GeneratedMethodAccessor)\d+()$`)},
	{"$$Lambda", regexp.MustCompile(`^(.+\$\$Lambda)(?:\d+|\$?\d*(?:[./+](?:0x)?[\da-f]+)+)()$`)},
	{"+0x", regexp.MustCompile(`^(.+)\+0x[\da-f]+(?:[./]\d+)?()$`)}, // hidden classes
	{"$$EnhancerBySpringCGLIB$$", regexp.MustCompile(`^(.+\$\$EnhancerBySpringCGLIB\$\$).*()$`)},
	{"libzstd-jni-", regexp.MustCompile(`^(?:\.?/tmp/)?(libzstd-jni-)\d+\.\d+\.\d+-\d+(\.so)(?: \(deleted\))?$`)},
	{"amazonCorrettoCryptoProvider", regexp.MustCompile(`^(?:\.?/tmp/)?(?:lib)?amazonCorrettoCryptoProvider(?:NativeLibraries\.)?[\da-f]{16}(?:/libcrypto|/libamazonCorrettoCryptoProvider)?\.so(?: \(deleted\))?$`)},
}

// stable returns the name of a class without what is random in it.
func stable(class []byte) []byte {
	for _, m := range madeUp {
		if !bytes.Contains(class, []byte(m.has)) {
			continue
		}
		if m.pattern.NumSubexp() == 0 {
			class = m.pattern.ReplaceAll(class, []byte("lib"+m.has+"_.so"))
		} else {
			class = m.pattern.ReplaceAll(class, []byte("${1}_$2"))
		}
	}
	return class
}
