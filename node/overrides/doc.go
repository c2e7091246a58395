// Package overrides knows the limits of each tenant: what a file says, over the defaults of kiln.
//
//	defaults:                     # every tenant, unless it is named below
//	  rate: 8MiB                  # bytes a second
//	tenants:
//	  acme:
//	    max_active_series: 100000
//	    max_age: 30d
//
// There are two types. Set is one version of the file, checked as a whole: a mistake anywhere in it is an error that
// names line, key and value, and nothing of it is used. Overrides watches the file and holds the latest good version; a
// version that is not good is logged and counted, and the one before stays.
//
// Sizes are bytes, bare or with a unit (KiB, MiB, GiB, or KB, MB, GB); times are written like 10m, 36h or 30d.
// Other sections of the same file belong to whoever adds a Section: they are checked and published together with the
// limits.
//
// The file is read again as a whole every few seconds and compared: it is small, and that finds every way in which editors,
// configuration management and Kubernetes replace files. A new version is taken when it is found twice, as half of a file
// that is being written may be a good one; after a hangup signal, at once.
package overrides
