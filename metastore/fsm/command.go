package fsm

import (
	"fmt"
	"reflect"
	"slices"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Version is the newest version of the command set that this build applies. What each version added:
//
//	1  all that is not named below
//	2  DropData; jobs that rewrite
//	3  DropData by a selector
const Version = 3

// VersionOf returns the least version of the command set that has a command. It is what a command is written with, so that
// members of an older build go on as long as nothing newer is asked for.
func VersionOf(cmd *storagev1.Command) uint32 {
	switch body := cmd.GetBody().(type) {
	case *storagev1.Command_DropData:
		if slices.ContainsFunc(body.DropData.GetDrops(), func(d *storagev1.Drop) bool { return d.GetSelector() != "" }) {
			return 3
		}
		return 2
	case *storagev1.Command_AssignJobs:
		for _, j := range body.AssignJobs.GetNewJobs() {
			if j.GetRewrite() {
				return 2
			}
		}
	}
	return 1
}

// Entry is what a handler may know of the log entry besides its command.
type Entry struct {
	Index uint64
	Term  uint64
	// Time is the proposer's clock in Unix nanoseconds, made monotone: never before that of an earlier entry.
	Time int64
}

// Commands says what to do with each command: its body's type in the oneof, and the handler.
type Commands map[reflect.Type]handler

type handler func(tx *bbolt.Tx, e Entry, cmd *storagev1.Command) (any, error)

// Handle adds the handler of one command. Body is the type in the oneof, such as *storagev1.Command_AddSegments.
// The package comment says what a handler may do.
func Handle[Body any](c Commands, handle func(tx *bbolt.Tx, e Entry, body Body) (any, error)) {
	t := reflect.TypeFor[Body]()
	if c[t] != nil {
		panic(fmt.Sprintf("two handlers for %v", t))
	}
	c[t] = func(tx *bbolt.Tx, e Entry, cmd *storagev1.Command) (any, error) {
		return handle(tx, e, cmd.GetBody().(any).(Body))
	}
}

// EncodeCommand returns the bytes of a log entry.
func EncodeCommand(cmd *storagev1.Command) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(cmd)
}

// decode returns the command in data and its handler, or the reason why this replica must halt.
func (c Commands) decode(data []byte, cluster string) (*storagev1.Command, handler, error) {
	cmd := &storagev1.Command{}
	if err := proto.Unmarshal(data, cmd); err != nil {
		return nil, nil, fmt.Errorf("command cannot be decoded: %w", err)
	}
	if cmd.GetVersion() == 0 || cmd.GetVersion() > Version {
		return nil, nil, fmt.Errorf("command has version %d, this build knows 1 to %d", cmd.GetVersion(), Version)
	}
	handle := c[reflect.TypeOf(cmd.GetBody())]
	if handle == nil {
		return nil, nil, fmt.Errorf("command %T is unknown to this build", cmd.GetBody())
	}
	if _, first := cmd.GetBody().(*storagev1.Command_InitCluster); !first && (cluster == "" || cmd.GetCluster() != cluster) {
		return nil, nil, fmt.Errorf("command is of cluster %q, this replica of %q", cmd.GetCluster(), cluster)
	}
	return cmd, handle, nil
}
