package open_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kilndb/kiln/objstore/open"
)

func TestBucket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with space", "bucket")
	for url, want := range map[string]string{
		"mem://": "*memory.Bucket",
		"file://" + strings.ReplaceAll(dir, " ", "%20"):                              "*file.Bucket",
		"s3://name?endpoint=http://127.0.0.1:1&region=us-east-1&use_path_style=true": "*cloud.Bucket",
	} {
		b, err := open.Bucket(t.Context(), url)
		if err != nil {
			t.Errorf("open %s: %v", url, err)
			continue
		}
		if got := fmt.Sprintf("%T", b); got != want {
			t.Errorf("open %s: %s, want %s", url, got, want)
		}
		if want == "*file.Bucket" {
			if err := b.Put(t.Context(), "k", nil); err != nil {
				t.Error(err)
			}
			if found, _ := filepath.Glob(filepath.Join(dir, "k")); len(found) != 1 {
				t.Errorf("the object is not in %s", dir)
			}
		}
		if err := b.Close(); err != nil {
			t.Errorf("close %s: %v", url, err)
		}
	}
}

func TestBucketRefuses(t *testing.T) {
	for _, url := range []string{
		"", "/a/path", "file://", "file://host/path", "file:relative", "file:///path?create=1", "file:///path#x", "mem://x", "mem:", "ftp://x",
		"s3://", "s3://user:hunter2@name", "%zz://hunter2", "s3://hunter2%zz", "file:///dev/null/bucket",
	} {
		b, err := open.Bucket(t.Context(), url)
		if err == nil || b != nil {
			t.Errorf("open %q: %v, %v; want an error and no bucket", url, b, err)
		} else if strings.Contains(err.Error(), "user:hunter2") {
			t.Errorf("open %q: the error tells a password: %v", url, err)
		}
	}
}
