package raftnode

import (
	"io"

	"github.com/hashicorp/raft"
)

// transport is Raft's own, but for a stream being for a member and not for whoever listens at an address.
type transport struct{ *raft.NetworkTransport }

var (
	_ raft.Transport   = transport{}
	_ raft.WithPreVote = transport{}
	_ raft.WithClose   = transport{}
)

// targetOf returns how the stream layer is told whom a stream is for.
func targetOf(id raft.ServerID, address raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(id) + "@" + address
}

// AppendEntriesPipeline is not used.
func (t transport) AppendEntriesPipeline(id raft.ServerID, address raft.ServerAddress) (raft.AppendPipeline, error) {
	return t.NetworkTransport.AppendEntriesPipeline(id, targetOf(id, address))
}

// AppendEntries sends entries, or none as a sign of life.
func (t transport) AppendEntries(id raft.ServerID, address raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return t.NetworkTransport.AppendEntries(id, targetOf(id, address), req, resp)
}

// RequestVote asks for a vote.
func (t transport) RequestVote(id raft.ServerID, address raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.NetworkTransport.RequestVote(id, targetOf(id, address), req, resp)
}

// RequestPreVote asks whether there would be a vote.
func (t transport) RequestPreVote(id raft.ServerID, address raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.NetworkTransport.RequestPreVote(id, targetOf(id, address), req, resp)
}

// InstallSnapshot sends a snapshot.
func (t transport) InstallSnapshot(id raft.ServerID, address raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.NetworkTransport.InstallSnapshot(id, targetOf(id, address), req, resp, data)
}

// TimeoutNow has a member stand for election at once.
func (t transport) TimeoutNow(id raft.ServerID, address raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.NetworkTransport.TimeoutNow(id, targetOf(id, address), req, resp)
}
