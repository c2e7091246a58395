package process

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// remoteBucket returns the URL of a bucket on an S3 server of this process whose puts take a while. It is set up by the environment of
// servers that start from now on.
func remoteBucket(b *testing.B, put time.Duration) string {
	b.Helper()
	objects := s3mem.New()
	if err := objects.CreateBucket("profiles"); err != nil {
		b.Fatal(err)
	}
	s3 := gofakes3.New(objects).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			time.Sleep(put)
		}
		s3.ServeHTTP(w, r)
	}))
	b.Cleanup(server.Close)
	b.Setenv("AWS_ACCESS_KEY_ID", "test")
	b.Setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
	return fmt.Sprintf("s3://profiles?endpoint=%s&region=us-east-1&use_path_style=true", server.URL)
}
