package inspect

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/kilndb/kiln/block"
)

// table reads the column chunks of a PROFILES section.
func (o *object) table(ctx context.Context, s *Section, b []byte, group int) error {
	meta, err := o.tableMeta(ctx, b, group)
	if err != nil {
		return err
	}
	s.Counts = map[string]uint64{"rows": uint64(meta.NumRows)}
	for i := range meta.RowGroups {
		for j := range meta.RowGroups[i].Columns {
			c := &meta.RowGroups[i].Columns[j].MetaData
			s.Columns = append(s.Columns, Column{
				Name: strings.Join(c.PathInSchema, "."), Encoding: encodings(c.Encoding),
				Raw: c.TotalUncompressedSize, Stored: c.TotalCompressedSize,
			})
		}
	}
	return nil
}

// tableMeta decodes the footer of the Parquet file that a PROFILES section is. It lets a block.Reader have a look
// first, because the decoder makes room for whatever a list claims.
func (o *object) tableMeta(ctx context.Context, b []byte, group int) (meta format.FileMetaData, err error) {
	r, err := block.Open(o.src, Alone(o.meta, group))
	if err != nil {
		return meta, err
	}
	if len(r.Datasets()) == 0 || len(r.Datasets()[0].Rows) == 0 {
		return meta, fmt.Errorf("%w: a table without a dataset", block.ErrCorrupt)
	}
	if _, err := r.Datasets()[0].Rows[0].Profiles(ctx); err != nil {
		return meta, err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: footer of the profiles: %v", block.ErrCorrupt, p)
		}
	}()
	end := len(b) - 8 // length and magic come last
	footer := b[end-int(binary.LittleEndian.Uint32(b[end:])) : end]
	var compact thrift.CompactProtocol
	if err := thrift.NewDecoder(compact.NewReaderFromBytes(footer)).Decode(&meta); err != nil {
		return meta, fmt.Errorf("%w: footer of the profiles: %w", block.ErrCorrupt, err)
	}
	return meta, nil
}

func encodings(all []format.Encoding) string {
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = strings.ToLower(e.String())
	}
	return strings.Join(names, "+")
}
