package index

import (
	"fmt"
	"sync/atomic"

	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// entry is one object. Most are replaced before anybody asks for them, and as bytes they take a third of the memory, in one
// piece: they are decoded when they are asked for, once.
type entry struct {
	id      ulid.ULID
	encoded atomic.Pointer[[]byte]              // nil once there is the message
	message atomic.Pointer[storagev1.BlockMeta] // nil while nobody has asked
}

// newEntry returns the entry of a message that can be decoded. encoded belongs to it.
func newEntry(id ulid.ULID, encoded []byte) *entry {
	e := &entry{id: id}
	e.encoded.Store(&encoded)
	return e
}

// meta returns the entry's message, the same one at each call. It may be called concurrently.
func (e *entry) meta() *storagev1.BlockMeta {
	if m := e.message.Load(); m != nil {
		return m
	}
	encoded := e.encoded.Load()
	if encoded == nil { // somebody was faster
		return e.message.Load()
	}
	m, err := decode(*encoded)
	if err != nil {
		panic(fmt.Sprintf("entry %s: %v", e.id, err)) // it was decoded before it came here
	}
	if e.message.CompareAndSwap(nil, m) {
		e.encoded.Store(nil)
	}
	return e.message.Load()
}

// pick returns the entry's message with only the datasets of hits.
func (e *entry) pick(hits []span) *storagev1.BlockMeta {
	m := e.meta()
	if len(hits) == len(m.GetDatasets()) {
		return m
	}
	datasets := make([]*storagev1.Dataset, len(hits))
	for i, h := range hits {
		datasets[i] = m.GetDatasets()[h.dataset]
	}
	return withDatasets(m, datasets)
}

func encode(m *storagev1.BlockMeta) ([]byte, error) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode entry %s: %w", m.GetId(), err)
	}
	return encoded, nil
}

func decode(encoded []byte) (*storagev1.BlockMeta, error) {
	m := &storagev1.BlockMeta{}
	if err := proto.Unmarshal(encoded, m); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return m, nil
}
