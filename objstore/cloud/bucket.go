package cloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"

	"github.com/kilndb/kiln/objstore"
)

var _ objstore.Bucket = (*Bucket)(nil)

// contentType is that of all objects. Upload insists on one.
const contentType = "application/octet-stream"

// Bucket is an object store in the cloud. Use Open.
type Bucket struct {
	name      string
	blob      *blob.Bucket
	client    *s3.Client
	transport *http.Transport
	condition condition
}

// Open returns the bucket at an s3:// URL. It makes no request: whether the bucket exists, and lets us in, is found
// out by using it.
func Open(ctx context.Context, rawURL string) (*Bucket, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", errors.Unwrap(err)) // what it wraps lacks the URL, which may hold a secret
	}
	if u.Scheme != s3blob.Scheme || u.Host == "" || u.User != nil || (u.Path != "" && u.Path != "/") {
		return nil, fmt.Errorf("open bucket: the URL must be %s://NAME?parameters, without user, password and path", s3blob.Scheme)
	}
	b := &Bucket{name: u.Host}
	opener := new(s3blob.URLOpener)
	asConfigured, err := opener.OpenBucketURL(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	defer asConfigured.Close()
	if !asConfigured.As(&b.client) {
		return nil, fmt.Errorf("open bucket %s: its driver has no S3 client", b.name)
	}
	b.client, b.transport = adapt(b.client)
	b.blob, err = s3blob.OpenBucket(ctx, b.client, b.name, &opener.Options) // where the opener left what the URL says
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", b.name, err)
	}
	return b, nil
}

// Get downloads the whole object.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, error) {
	if err := objstore.CheckKey(key); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	r, err := b.blob.NewReader(ctx, key, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, translate(ctx, err))
	}
	return download(ctx, r, key, r.Size())
}

// GetRange downloads exactly the n bytes at off.
func (b *Bucket) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if err := objstore.CheckKey(key); err != nil {
		return nil, fmt.Errorf("get range: %w", err)
	}
	if off < 0 || n < 0 {
		return nil, fmt.Errorf("get range of %s: %w: %d bytes at %d", key, objstore.ErrRange, n, off)
	}
	if n == 0 || off+n < 0 { // what no range header can say: size up, and see whether the object is that large
		attributes, err := b.Attributes(ctx, key)
		if err != nil {
			return nil, err
		}
		return nil, objstore.CheckRange(key, attributes.Size, off, n)
	}
	r, err := b.blob.NewRangeReader(ctx, key, off, n, nil)
	if err != nil {
		return nil, fmt.Errorf("get %d bytes at %d of %s: %w", n, off, key, translate(ctx, err))
	}
	if err := objstore.CheckRange(key, r.Size(), off, n); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return download(ctx, r, key, n)
}

// download reads exactly n bytes and closes the reader.
func download(ctx context.Context, r *blob.Reader, key string, n int64) ([]byte, error) {
	defer r.Close()
	data := make([]byte, n)
	if read, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("get %s: %d of %d bytes: %w", key, read, n, translate(ctx, unexpectedEOF(err)))
	}
	return data, nil
}

// Attributes asks for the object's size and modification time.
func (b *Bucket) Attributes(ctx context.Context, key string) (objstore.Attributes, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Attributes{}, fmt.Errorf("attributes: %w", err)
	}
	got, err := b.blob.Attributes(ctx, key)
	if err != nil {
		return objstore.Attributes{}, fmt.Errorf("attributes of %s: %w", key, translate(ctx, err))
	}
	return objstore.Attributes{Key: key, Size: got.Size, ModTime: got.ModTime}, nil
}

// Put uploads data.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	return b.upload(ctx, key, bytes.NewReader(data), false)
}

// PutFrom uploads the first size bytes of src, in parts where they are many.
func (b *Bucket) PutFrom(ctx context.Context, key string, src io.ReaderAt, size int64) error {
	if size < 0 {
		return fmt.Errorf("put %s: negative size %d", key, size)
	}
	return b.upload(ctx, key, &exactReader{src: io.NewSectionReader(src, 0, size), left: size}, false)
}

// PutIfAbsent uploads data under the condition that there is no such object.
func (b *Bucket) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	if err := objstore.CheckKey(key); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	if err := objstore.CheckIfAbsent(key, data); err != nil {
		return err
	}
	if err := b.condition.check(ctx, b.upload); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return b.upload(ctx, key, bytes.NewReader(data), true)
}

func (b *Bucket) upload(ctx context.Context, key string, src io.Reader, ifAbsent bool) error {
	if err := objstore.CheckKey(key); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	err := b.blob.Upload(ctx, key, src, &blob.WriterOptions{ContentType: contentType, IfNotExist: ifAbsent})
	if err != nil {
		return fmt.Errorf("put %s: %w", key, translate(ctx, err))
	}
	return nil
}

// List asks page by page.
func (b *Bucket) List(ctx context.Context, prefix string, fn func(objstore.Attributes) error) error {
	if err := objstore.CheckPrefix(prefix); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	objects := b.blob.List(&blob.ListOptions{Prefix: prefix})
	for {
		o, err := objects.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %q: %w", prefix, translate(ctx, err))
		}
		if objstore.CheckKey(o.Key) != nil {
			continue // somebody else's
		}
		if err := fn(objstore.Attributes{Key: o.Key, Size: o.Size, ModTime: o.ModTime}); err != nil {
			return err
		}
	}
}

// Delete removes the object with one request, unlike blob.Bucket.Delete, which asks first whether there is one and
// then cannot tell a missing bucket from a missing object.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(b.name), Key: aws.String(key)})
	if err = translate(ctx, err); err != nil && !errors.Is(err, objstore.ErrNotFound) {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// Close closes the bucket and its idle connections.
func (b *Bucket) Close() error {
	b.transport.CloseIdleConnections()
	return b.blob.Close()
}

// exactReader fails where src ends before left bytes have been read: what is uploaded would be a short object.
type exactReader struct {
	src  io.Reader
	left int64
}

// Read implements io.Reader.
func (r *exactReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	r.left -= int64(n)
	if err == io.EOF && r.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
