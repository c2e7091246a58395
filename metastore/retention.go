package metastore

import (
	"context"
	"time"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/compaction"
)

// dropBatch is how many services one command of retention names at most.
const dropBatch = 256

// retentionLoop drops what has become older than its tenant keeps it.
func (m *Metastore) retentionLoop(ctx context.Context) {
	if m.cfg.Retention == nil {
		return
	}
	for ctx.Err() == nil {
		if err := m.retain(ctx, time.Now()); err != nil && ctx.Err() == nil {
			m.log.Warn("old data could not be dropped", "err", err)
		}
		pause(ctx, m.cfg.RetentionInterval)
	}
}

// retain drops what is too old at now.
func (m *Metastore) retain(ctx context.Context, now time.Time) error {
	drops := m.expired(now)
	for len(drops) > 0 {
		n := min(len(drops), dropBatch)
		result, err := m.drop(ctx, "retention", &storagev1.DropData{Drops: drops[:n], RewriteAfter: int64(m.cfg.RewriteAfter)})
		if err != nil {
			return err
		}
		m.log.Info("old data dropped", "services", n, "objects", result.Gone, "reduced", result.Reduced)
		drops = drops[n:]
	}
	return nil
}

// expired returns what to drop at now, tenant by tenant and service by service.
func (m *Metastore) expired(now time.Time) (drops []*storagev1.Drop) {
	before := func(tenant, service string) int64 {
		if keep := m.cfg.Retention(tenant, service); keep > 0 {
			return now.Add(-keep).UnixNano()
		}
		return 0
	}
	m.machine.index.View().Expired(before, func(tenant, service string, before int64) {
		drops = append(drops, &storagev1.Drop{Tenant: tenant, Service: &service, Before: before})
	})
	return drops
}

// drop proposes a command that drops data; cause is for the metrics.
func (m *Metastore) drop(ctx context.Context, cause string, cmd *storagev1.DropData) (compaction.Dropped, error) {
	result, err := propose[compaction.Dropped](ctx, m, &storagev1.Command{Body: &storagev1.Command_DropData{DropData: cmd}})
	if err == nil {
		err = result.Refused
	}
	m.metrics.dropped.WithLabelValues(cause, "gone").Add(float64(result.Gone))
	m.metrics.dropped.WithLabelValues(cause, "reduced").Add(float64(result.Reduced))
	return result, err
}
