package fsm

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"
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

type handler struct {
	field protowire.Number // of a body that is handed over as bytes; 0: the body is decoded
	apply func(tx *bbolt.Tx, e Entry, cmd *storagev1.Command, body []byte) (any, error)
}

// Handle adds the handler of one command. Body is the type in the oneof, such as *storagev1.Command_AddSegments.
// The package comment says what a handler may do.
func Handle[Body any](c Commands, handle func(tx *bbolt.Tx, e Entry, body Body) (any, error)) {
	c.add(reflect.TypeFor[Body](), handler{apply: func(tx *bbolt.Tx, e Entry, cmd *storagev1.Command, _ []byte) (any, error) {
		return handle(tx, e, cmd.GetBody().(any).(Body))
	}})
}

// HandleBytes is Handle for a command whose handler decodes the body itself, to store parts of it as they came. The bytes
// are those of the log entry: they are valid until the transaction ends, and must not be changed.
func HandleBytes[Body any](c Commands, handle func(tx *bbolt.Tx, e Entry, body []byte) (any, error)) {
	t := reflect.TypeFor[Body]()
	c.add(t, handler{fieldOf(t), func(tx *bbolt.Tx, e Entry, _ *storagev1.Command, body []byte) (any, error) {
		return handle(tx, e, body)
	}})
}

func (c Commands) add(body reflect.Type, h handler) {
	if _, ok := c[body]; ok {
		panic(fmt.Sprintf("two handlers for %v", body))
	}
	c[body] = h
}

// fieldOf returns which field of Command a type in the oneof is.
func fieldOf(body reflect.Type) protowire.Number {
	cmd := &storagev1.Command{}
	m := cmd.ProtoReflect()
	fields := m.Descriptor().Oneofs().ByName("body").Fields()
	for i := range fields.Len() {
		m.Set(fields.Get(i), m.NewField(fields.Get(i)))
		if reflect.TypeOf(cmd.GetBody()) == body {
			return fields.Get(i).Number()
		}
	}
	panic(fmt.Sprintf("%v is no body of a command", body))
}

// EncodeCommand returns the bytes of a log entry.
func EncodeCommand(cmd *storagev1.Command) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(cmd)
}

// decode returns the command in data, the bytes of its body if the handler wants them, and the handler; or the reason why
// this replica must halt.
func (c Commands) decode(data []byte, cluster string) (*storagev1.Command, []byte, handler, error) {
	cmd, body, err := c.unmarshal(data)
	if err != nil {
		return nil, nil, handler{}, fmt.Errorf("command cannot be decoded: %w", err)
	}
	if cmd.GetVersion() == 0 || cmd.GetVersion() > Version {
		return nil, nil, handler{}, fmt.Errorf("command has version %d, this build knows 1 to %d", cmd.GetVersion(), Version)
	}
	handle, known := c[reflect.TypeOf(cmd.GetBody())]
	if !known {
		return nil, nil, handler{}, fmt.Errorf("command %T is unknown to this build", cmd.GetBody())
	}
	if _, first := cmd.GetBody().(*storagev1.Command_InitCluster); !first && (cluster == "" || cmd.GetCluster() != cluster) {
		return nil, nil, handler{}, fmt.Errorf("command is of cluster %q, this replica of %q", cmd.GetCluster(), cluster)
	}
	return cmd, body, handle, nil
}

// unmarshal decodes a command. A body that is handed over as bytes is empty in it.
func (c Commands) unmarshal(data []byte) (cmd *storagev1.Command, body []byte, err error) {
	var rest []byte // all but the bytes of the body
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeField(data)
		if n < 0 {
			return nil, nil, protowire.ParseError(n)
		}
		switch {
		case kind != protowire.BytesType || !c.takesBytes(field):
			rest = append(rest, data[:n]...)
		case body != nil:
			return nil, nil, errors.New("two bodies")
		default:
			_, _, tag := protowire.ConsumeTag(data)
			body, _ = protowire.ConsumeBytes(data[tag:])
			rest = protowire.AppendBytes(protowire.AppendTag(rest, field, kind), nil)
		}
		data = data[n:]
	}
	cmd = &storagev1.Command{}
	return cmd, body, proto.Unmarshal(rest, cmd)
}

// takesBytes says whether a field of Command is a body that is handed over as bytes.
func (c Commands) takesBytes(field protowire.Number) bool {
	for _, h := range c {
		if h.field == field {
			return true
		}
	}
	return false
}
