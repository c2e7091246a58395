package web

import (
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

func get(t *testing.T, method, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	Handler().ServeHTTP(rec, req)
	return rec
}

func TestEveryFileIsServed(t *testing.T) {
	page := get(t, http.MethodGet, "/").Body.String()
	linked := regexp.MustCompile(`(?:src|href)="\./([^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(linked) != 3 {
		t.Fatalf("the page links %d files, want script, style and icon: %q", len(linked), linked)
	}
	types := map[string]string{
		"": "text/html; charset=utf-8", ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
		".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	}
	for _, file := range []string{"", "index.html", linked[0][1], linked[1][1], linked[2][1]} {
		rec := get(t, http.MethodGet, "/"+file)
		if rec.Code != http.StatusOK || rec.Body.Len() == 0 {
			t.Fatalf("/%s: status %d, %d bytes", file, rec.Code, rec.Body.Len())
		}
		if got, want := rec.Header().Get("Content-Type"), types[path.Ext(file)]; got != want {
			t.Errorf("/%s: content type %q, want %q", file, got, want)
		}
		wantCache := "no-cache"
		if strings.HasPrefix(file, "assets/") {
			wantCache = "public, max-age=31536000, immutable"
		}
		if got := rec.Header().Get("Cache-Control"); got != wantCache {
			t.Errorf("/%s: cache control %q, want %q", file, got, wantCache)
		}
		if got := rec.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'self'; img-src 'self' data:") {
			t.Errorf("/%s: content security policy %q", file, got)
		}
		if got := rec.Header().Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("/%s: content type options %q", file, got)
		}
	}
}

func TestThePageObeysItsOwnPolicy(t *testing.T) {
	page := get(t, http.MethodGet, "/").Body.String()
	for _, forbidden := range []string{"<style", " style=", "onload=", "http://", "https://"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("the page contains %q", forbidden)
		}
	}
	if inline := regexp.MustCompile(`<script[^>]*>[^<]`).FindString(page); inline != "" {
		t.Errorf("inline script: %s", inline)
	}
}

func TestUnknownPathsAreNotThePage(t *testing.T) {
	for _, path := range []string{
		"/querier.v1.QuerierService/SelectSeriez", "/ingest", "/assets/", "/assets", "/assets/index-00000000.js",
		"/dist/index.html", "/web.go", "/index", "//", "/../web.go",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			rec := get(t, method, path)
			if rec.Code != http.StatusNotFound || strings.Contains(rec.Body.String(), "<") {
				t.Errorf("%s %s: status %d, %q", method, path, rec.Code, rec.Body)
			}
		}
	}
}

func TestTheIndexIsRevalidated(t *testing.T) {
	first := get(t, http.MethodGet, "/")
	again := get(t, http.MethodGet, "/", "If-None-Match", first.Header().Get("ETag"))
	if again.Code != http.StatusNotModified || again.Body.Len() != 0 {
		t.Errorf("same ETag: status %d, %d bytes", again.Code, again.Body.Len())
	}
	other := get(t, http.MethodGet, "/", "If-None-Match", `"of an older kiln"`)
	if other.Code != http.StatusOK {
		t.Errorf("other ETag: status %d", other.Code)
	}
}

func TestThePageIsOnlyRead(t *testing.T) {
	if rec := get(t, http.MethodPost, "/"); rec.Code != http.StatusMethodNotAllowed || rec.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /: status %d, Allow %q", rec.Code, rec.Header().Get("Allow"))
	}
	if rec := get(t, http.MethodHead, "/"); rec.Code != http.StatusOK || rec.Body.Len() != 0 {
		t.Errorf("HEAD /: status %d, %d bytes", rec.Code, rec.Body.Len())
	}
}

func TestABrokenBuildIsAnError(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"no index":              {"dist/assets/a.js": {Data: []byte("1")}},
		"unknown kind of file":  {"dist/index.html": {Data: []byte("1")}, "dist/a.wasm": {Data: []byte("1")}},
		"nothing built at all ": {},
	} {
		if _, err := load(files); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
