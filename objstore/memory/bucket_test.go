package memory_test

import (
	"testing"

	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/objstore/objstoretest"
)

func TestBucket(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Bucket { return memory.New() })
}
