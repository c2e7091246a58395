package distributor

import (
	"time"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// retrySeries is what the sender of a new series beyond the limit is told to wait. Room comes when others end, which
// nobody can foretell.
const retrySeries = time.Minute

// admit refuses a request whose tenant has used up its rate. It is asked before anything is decoded, once for all
// profiles of a request: those that are let in are let in together, so that a repetition finds nothing stored.
func (d *Distributor) admit(r *request) error {
	r.admission.Do(func() { r.account, r.refused = d.open(r) })
	return r.refused
}

func (d *Distributor) open(r *request) (*account, error) {
	if r.limits.Rate <= 0 && r.limits.MaxActiveSeries <= 0 {
		return nil, nil
	}
	acc, ok := d.accounts.get(r.tenant)
	switch {
	case !ok:
		return nil, refuseUntil(retrySeries, reasonSeries, "the server remembers as many tenants and series as it may, %d", maxRemembered)
	case r.limits.Rate <= 0:
		return acc, nil
	}
	n := max(d.cfg.Distributors(), 1)
	wait, ok := acc.rate.admit(d.cfg.Now(), float64(r.limits.Rate)/float64(n), float64(r.limits.Burst))
	if ok {
		return acc, nil
	}
	share := ""
	if n > 1 {
		share = ", of which each of the distributors takes an equal part"
	}
	return acc, refuseUntil(wait, reasonRate, "tenant %s is over its rate limit of %d bytes of decompressed profiles a second (burst %d)%s; try again in %s",
		r.tenant, r.limits.Rate, r.limits.Burst, share, wait.Round(time.Millisecond))
}

// charge takes bytes from the rate of a request's tenant. Those of a profile are taken as they come to light: as many as
// were sent before it is decoded, the difference to what they inflated to behind.
func (d *Distributor) charge(r *request, n int) {
	if r.account != nil && r.limits.Rate > 0 {
		r.account.rate.take(d.cfg.Now(), n)
	}
}

// checkActive refuses a profile that brings more new series than its tenant may have.
func (d *Distributor) checkActive(dec *decoding, r *request, series labels.Labels, p *profile.Profile) error {
	if r.account == nil || r.limits.MaxActiveSeries <= 0 {
		return nil
	}
	dec.hashes = hashSeries(dec.hashes[:0], d.seed, series, p)
	active, ok := r.account.series.use(d.cfg.Now(), dec.hashes, r.limits.MaxActiveSeries)
	if ok {
		return nil
	}
	if active+len(dec.hashes) <= r.limits.MaxActiveSeries {
		return refuseUntil(retrySeries, reasonSeries, "the server remembers as many active series of all tenants as it may, %d", maxRemembered)
	}
	return refuseUntil(retrySeries, reasonSeries, "tenant %s has %d active series; the %d of this profile are more than the limit of %d allows, where they are new",
		r.tenant, active, len(dec.hashes), r.limits.MaxActiveSeries)
}
