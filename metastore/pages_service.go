package metastore

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// IndexPages returns the handler of IndexPagesService.
func (m *Metastore) IndexPages() metastorev1connect.IndexPagesServiceHandler {
	return indexPagesService{m}
}

// indexPagesService serves IndexPagesService.
type indexPagesService struct{ m *Metastore }

// FindPages answers from one view of the index, which stays what it is however long the answer takes.
func (s indexPagesService) FindPages(ctx context.Context, req *connect.Request[metastorev1.FindPagesRequest], out *connect.ServerStream[metastorev1.FindPagesResponse]) error {
	answer, err := s.m.find(ctx, req.Msg.GetFind())
	if err != nil {
		return err
	}
	for rest := answer.GetEntries(); ; { // the first also if there are no entries: it says which view that is
		page := firstPage(rest)
		if err := out.Send(&metastorev1.FindPagesResponse{Page: &metastorev1.FindResponse{Entries: page, Index: answer.GetIndex()}}); err != nil {
			return err
		}
		if rest = rest[len(page):]; len(rest) == 0 {
			return nil
		}
	}
}

// firstPage returns as many of the entries as have about pageBytes, one at least if there are any.
func firstPage(entries []*storagev1.BlockMeta) []*storagev1.BlockMeta {
	size := 0
	for i, m := range entries {
		if size += proto.Size(m); i > 0 && size > pageBytes {
			return entries[:i]
		}
	}
	return entries
}
