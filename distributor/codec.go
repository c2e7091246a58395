package distributor

import (
	"bytes"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kilndb/kiln/tenant"
)

// elements returns how many messages a push may be made of: the series that it may have, with their labels and
// profiles.
func elements(lim tenant.Limits) int {
	return lim.MaxSeriesPerRequest * (1 + lim.MaxLabels + lim.MaxProfilesPerSeries)
}

// codec unmarshals messages after a look at how many there are inside: two bytes say that there is a series, and the
// series takes a hundred. Only pushes are looked at.
type codec struct {
	name    string // as Connect knows it
	most    int
	refused func()
}

// codecs returns options that take the place of all codecs that Connect has.
func codecs(most int, refused func()) connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithCodec(codec{"proto", most, refused}),
		connect.WithCodec(codec{"json", most, refused}),
		connect.WithCodec(codec{"json; charset=utf-8", most, refused}))
}

// Name implements connect.Codec.
func (c codec) Name() string { return c.name }

// Marshal implements connect.Codec.
func (c codec) Marshal(message any) ([]byte, error) {
	m, ok := message.(proto.Message)
	switch {
	case !ok:
		return nil, fmt.Errorf("%T is no protobuf message", message)
	case c.name == "proto":
		return proto.Marshal(m)
	}
	return protojson.Marshal(m)
}

// Unmarshal implements connect.Codec.
func (c codec) Unmarshal(data []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no protobuf message", message)
	}
	if _, push := message.(*pushv1.PushRequest); push {
		count := countJSON
		if c.name == "proto" {
			count = countProto
		}
		if n := count(data); n > c.most {
			c.refused()
			return fmt.Errorf("the request has %d series, labels and profiles, more than the limits on them allow together, %d", n, c.most)
		}
	}
	switch {
	case c.name == "proto":
		return proto.Unmarshal(data, m)
	case len(data) == 0:
		return errors.New("zero-length payload is not a valid JSON object")
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, m)
}

// countProto counts the messages in a push: series, and what is in them. It stops where the bytes make no sense, as
// whoever unmarshals them will.
func countProto(push []byte) (n int) {
	eachBytes(push, func(series []byte) {
		n++
		eachBytes(series, func([]byte) { n++ })
	})
	return n
}

func eachBytes(message []byte, do func(field []byte)) {
	for len(message) > 0 {
		number, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return
		}
		message = message[n:]
		if n = protowire.ConsumeFieldValue(number, typ, message); n < 0 {
			return
		}
		if typ == protowire.BytesType {
			field, _ := protowire.ConsumeBytes(message)
			do(field)
		}
		message = message[n:]
	}
}

// countJSON counts what may be the start of a message in a push. A brace in a label counts too: there are never many.
func countJSON(push []byte) int { return bytes.Count(push, []byte{'{'}) - 1 }
