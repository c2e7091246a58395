package node

import (
	"fmt"
	"io"
	"net/http"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/gzip"
)

// maxQuestion bounds the message of a call that sends no profiles, as it comes and once inflated: a selector has at
// most 4 KiB.
const maxQuestion = 1 << 20

// question returns a handler for calls that send no profiles.
func (n *Node) question(next http.Handler) http.Handler {
	return n.door(http.MaxBytesHandler(next, maxQuestion))
}

// questionOptions bound what a question may send, and keep a panic inside its call.
func (n *Node) questionOptions() []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithReadMaxBytes(maxQuestion),
		connect.WithCompression("gzip",
			func() connect.Decompressor { return new(questionGunzip) },
			func() connect.Compressor { return gzip.NewWriter(io.Discard) }),
		n.recovered(),
	}
}

// questionGunzip inflates as much as a question may have. Connect by itself would go on to the end of a bomb, to tell
// how large it is.
type questionGunzip struct {
	gzip.Reader
	read int
}

// Reset implements connect.Decompressor.
func (g *questionGunzip) Reset(src io.Reader) error {
	g.read = 0
	return g.Reader.Reset(src)
}

// Read implements connect.Decompressor.
func (g *questionGunzip) Read(p []byte) (int, error) {
	n, err := g.Reader.Read(p)
	if g.read += n; g.read > maxQuestion {
		return 0, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("the message is larger than the limit of %d bytes once inflated", maxQuestion))
	}
	return n, err
}
