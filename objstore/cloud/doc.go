// Package cloud is a bucket in an object store that speaks S3. It and the packages below it are the only ones that
// import a cloud SDK.
//
// Open takes the URL of a bucket, s3://NAME?endpoint=http://HOST:PORT&region=REGION&use_path_style=true, where all
// parameters are optional; gocloud.dev/blob/s3blob and gocloud.dev/aws list the others. Credentials come from the
// environment, in the ways of the AWS SDK, and never from the URL.
//
// # Sharp edges
//
// Objects are written with blob.Bucket.Upload alone, never with NewWriter or WriteAll: some drivers of gocloud panic in
// those when a write fails.
//
// The SDK repeats a failed request twice by itself. A PutIfAbsent whose first answer was lost may so report ErrExists
// for an object of its own.
//
// Some stores that speak S3 ignore the condition of a conditional write. The first PutIfAbsent finds out, by writing
// the object "probes/put-if-absent" twice, and where the second write succeeds PutIfAbsent always fails with
// errors.ErrUnsupported.
//
// A bucket that does not exist is an error like any other, not ErrNotFound, with two exceptions: Attributes, and
// GetRange of no bytes, ask with a request whose answer does not tell the two apart.
package cloud
