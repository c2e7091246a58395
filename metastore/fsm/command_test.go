package fsm

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// bytesOfAdds returns commands of which one wants its body as bytes; its result is those, another's the ids it names.
func bytesOfAdds() Commands {
	c := Commands{}
	HandleBytes[*storagev1.Command_AddSegments](c, func(_ *bbolt.Tx, _ Entry, body []byte) (any, error) { return body, nil })
	Handle(c, func(_ *bbolt.Tx, _ Entry, body *storagev1.Command_DeleteTombstones) (any, error) {
		return body.DeleteTombstones.GetIds(), nil
	})
	return c
}

// apply returns the result of the command in data, and the command as its handler is told of it.
func apply(c Commands, data []byte) (*storagev1.Command, any, error) {
	cmd, body, handle, err := c.decode(data, "c")
	if err != nil {
		return nil, nil, err
	}
	result, err := handle.apply(nil, Entry{}, cmd, body)
	return cmd, result, err
}

func TestABodyIsHandedOverAsItCame(t *testing.T) {
	body := &storagev1.AddSegments{Segments: []*storagev1.BlockMeta{{Id: "a"}, {Id: "b", Shard: 7}}}
	want, err := proto.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	data, err := EncodeCommand(&storagev1.Command{Version: 1, Cluster: "c", Time: 9, Body: &storagev1.Command_AddSegments{AddSegments: body}})
	if err != nil {
		t.Fatal(err)
	}
	cmd, result, err := apply(bytesOfAdds(), data)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := result.([]byte); !ok || !bytes.Equal(got, want) || cmd.GetTime() != 9 || cmd.GetVersion() != 1 {
		t.Errorf("handled %v with the body %x, want %x", cmd, result, want)
	}
	if name := fmt.Sprintf("%T", cmd.GetBody()); name != "*storagev1.Command_AddSegments" {
		t.Errorf("the command is a %s", name)
	}
}

func TestAnEmptyBodyIsOne(t *testing.T) {
	data, err := EncodeCommand(&storagev1.Command{Version: 1, Cluster: "c", Body: &storagev1.Command_AddSegments{AddSegments: &storagev1.AddSegments{}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, result, err := apply(bytesOfAdds(), data); err != nil || len(result.([]byte)) != 0 {
		t.Errorf("result %v, %v", result, err)
	}
}

func TestOtherBodiesAreDecoded(t *testing.T) {
	data, err := EncodeCommand(&storagev1.Command{
		Version: 1, Cluster: "c", Body: &storagev1.Command_DeleteTombstones{DeleteTombstones: &storagev1.DeleteTombstones{Ids: []string{"a"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	// As for any oneof, the last body is the command's.
	data = append(protowire.AppendBytes(protowire.AppendTag(nil, 10, protowire.BytesType), nil), data...)
	if _, result, err := apply(bytesOfAdds(), data); err != nil || !slices.Equal(result.([]string), []string{"a"}) {
		t.Errorf("result %v, %v", result, err)
	}
}

func TestADamagedBodyIsNotDecoded(t *testing.T) {
	whole, err := EncodeCommand(&storagev1.Command{
		Version: 1, Cluster: "c", Body: &storagev1.Command_AddSegments{AddSegments: &storagev1.AddSegments{Segments: []*storagev1.BlockMeta{{Id: "a"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	body := protowire.AppendBytes(protowire.AppendTag(nil, 10, protowire.BytesType), []byte{10, 0})
	for name, data := range map[string][]byte{
		"cut short":  whole[:len(whole)-1],
		"twice":      append(slices.Clone(whole), body...),
		"a number":   protowire.AppendVarint(protowire.AppendTag([]byte{1 << 3, 1, 2<<3 | 2, 1, 'c'}, 10, protowire.VarintType), 1),
		"no cluster": append([]byte{1 << 3, 1}, body...),
		"no version": append([]byte{2<<3 | 2, 1, 'c'}, body...),
	} {
		if _, result, err := apply(bytesOfAdds(), data); err == nil {
			t.Errorf("%s: result %v, want an error", name, result)
		}
	}
}
