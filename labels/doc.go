// Package labels holds the names of series: sorted label sets, and the selectors that choose among them.
//
// Labels is a set, sorted by name. A Matcher tests the value of one name, a Selector is the matchers that must
// all hold; ParseSelector reads the PromQL form. All are values: they may be shared once built and are not
// changed by any method.
//
// A missing label and an empty value look the same to a Matcher, as in Prometheus. Labels itself keeps an
// empty value that it was given.
package labels
