// Package open chooses a provider of buckets by URL. It is the one place that knows them all, and so the one import
// that brings in a cloud SDK.
package open

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/cloud"
	"github.com/kilndb/kiln/objstore/file"
	"github.com/kilndb/kiln/objstore/memory"
)

// Bucket opens the bucket at a URL, which the caller closes:
//
//	file:///var/lib/kiln/bucket    a local directory, made where it is missing
//	mem://                         a new bucket in memory, which nobody else sees
//	s3://NAME?endpoint=http://HOST:PORT&region=REGION&use_path_style=true
//	                               a bucket in the cloud; the parameters are optional, credentials come from the
//	                               environment
//
// A URL with a user or a password is refused, and no error repeats them.
func Bucket(ctx context.Context, rawURL string) (objstore.Bucket, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", errors.Unwrap(err)) // what it wraps lacks the URL, which may hold a secret
	}
	switch u.Scheme {
	case "file":
		dir, err := directory(u)
		if err != nil {
			return nil, err
		}
		return nilOnError(file.Open(ctx, dir))
	case "mem":
		if rawURL != "mem://" {
			return nil, errors.New("open bucket: the URL of a bucket in memory is mem:// and no more")
		}
		return memory.New(), nil
	case "s3":
		return nilOnError(cloud.Open(ctx, rawURL))
	}
	return nil, fmt.Errorf("open bucket: unknown scheme %q, want file, mem or s3", u.Scheme)
}

func directory(u *url.URL) (string, error) {
	if u.Host != "" || u.User != nil || u.Opaque != "" || u.Path == "" {
		return "", errors.New("open bucket: the URL of a directory has an absolute path and no host: file:///path")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("open bucket: the URL of a directory has no parameters")
	}
	return u.Path, nil
}

// nilOnError keeps a nil pointer from becoming a bucket that is not nil.
func nilOnError[B objstore.Bucket](b B, err error) (objstore.Bucket, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}
