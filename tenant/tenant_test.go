package tenant_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/kilndb/kiln/tenant"
)

func TestParse(t *testing.T) {
	for _, s := range []string{"a", "anonymous", "Team-1_x.y", "...", ".a", "-", strings.Repeat("x", 150)} {
		if id, err := tenant.Parse(s); err != nil || string(id) != s {
			t.Errorf("Parse(%q) = %q, %v", s, id, err)
		}
	}
	for _, s := range []string{"", ".", "..", strings.Repeat("x", 151), "a/b", "../a", "a|b", "a b", " a", "a\n", "a\x00", "ä", "a%2fb", `a\b`, "a:b", "\xff"} {
		if id, err := tenant.Parse(s); !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("Parse(%q) = %q, %v, want ErrInvalid", s, id, err)
		}
	}
}

func TestContext(t *testing.T) {
	ctx := context.Background()
	if id, ok := tenant.FromContext(ctx); ok {
		t.Errorf("a bare context carries %q", id)
	}
	outer := tenant.NewContext(ctx, "a")
	inner := tenant.NewContext(outer, "b")
	if id, ok := tenant.FromContext(inner); !ok || id != "b" {
		t.Errorf("inner context: %q, %v", id, ok)
	}
	if id, ok := tenant.FromContext(outer); !ok || id != "a" {
		t.Errorf("outer context: %q, %v", id, ok)
	}
	if id, err := tenant.Parse(string(tenant.Anonymous)); err != nil || id != tenant.Anonymous {
		t.Errorf("anonymous is not a tenant: %v", err)
	}
}

// Every bound is there unless 0 is documented to mean that there is none, and they agree with each other.
func TestDefaultLimits(t *testing.T) {
	lim := tenant.DefaultLimits()
	v := reflect.ValueOf(lim)
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; v.Field(i).Int() <= 0 && name != "MaxAge" && name != "Retention" {
			t.Errorf("%s is %d", name, v.Field(i).Int())
		}
	}
	if lim.MaxProfileBytes > lim.MaxRequestBytes || lim.DefaultNodes > lim.MaxNodes {
		t.Errorf("limits contradict each other: %+v", lim)
	}
}
